internal import UserfaultFD
internal import UserfaultPager

/// The pages of a task whose dump is complete here: what its images have, and zeros elsewhere.
struct CRIUImageSource: PageSource {
    let pages: CRIUPages

    /// Images may lie on any disk.
    var isSlow: Bool { true }

    func extent(from offset: Int) -> Range<Int>? { pages.extent(from: offset) }

    func load(offset: Int, into room: inout OutputRawSpan) throws(CRIUImageError) -> PageReply {
        let found = try pages.find(offset, limit: room.freeCapacity)
        switch found.place {
        case .zeros: return .zeros(count: found.count)
        case .server: throw CRIUImageError("pagemap", .onServer(address: UInt64(offset)))
        case .file(let level, let position):
            var failure: CRIUImageError?
            unsafe room.withUnsafeMutableBytes { buffer, initialized in
                let part = unsafe UnsafeMutableRawBufferPointer(
                    rebasing: buffer[initialized..<initialized + found.count])
                do throws(CRIUImageError) {
                    initialized += unsafe try pages.read(level: level, offset: position, into: part)
                } catch {
                    failure = error
                }
            }
            if let failure { throw failure }
            return .data
        }
    }
}

/// The pages of a task that a page server has, but for those that are in the images here.
struct CRIUServerSource: AsynchronousPageSource {
    let pages: CRIUPages
    let task: Int32
    let server: CRIUPageServerConnection

    /// The most that is read from an image at once.
    private static var mostBytes: Int { 256 << 10 }

    func extent(from offset: Int) -> Range<Int>? { pages.extent(from: offset) }

    func load(_ request: consuming PageRequest) {
        let found: CRIUPageIndex.Found
        do throws(CRIUImageError) {
            found = try pages.find(request.offset, limit: request.byteCount)
        } catch {
            return request.fail()
        }
        switch found.place {
        case .server: server.ask(for: request, count: found.count, of: task)
        case .zeros: request.complete(.zeros(count: found.count))
        case .file(let level, let offset):
            var failed = false
            let bytes = unsafe [UInt8](unsafeUninitializedCapacity: min(found.count, Self.mostBytes)) { buffer, used in
                let room = UnsafeMutableRawBufferPointer(buffer)
                do throws(CRIUImageError) {
                    used = unsafe try pages.read(level: level, offset: offset, into: room)
                } catch {
                    failed = true
                }
            }
            if failed { request.fail() } else { unsafe request.complete(bytes.span.bytes) }
        }
    }
}
