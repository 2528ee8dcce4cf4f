import Testing
import UserfaultFD

@testable import UserfaultHandoff

@Suite("Cloud Hypervisor's requests")
struct CloudHypervisorRequestsTests {
    private typealias Request = CloudHypervisorRequests.Request

    private static let limits = CloudHypervisorLimits(configBytes: 100, stateBytes: 200, slots: 2)

    private static func message(_ command: CloudHypervisorCommand, _ payload: [UInt8] = []) -> [UInt8] {
        CloudHypervisorHeader(command, length: payload.count).bytes + payload
    }

    private static func read(
        _ bytes: [UInt8], as role: CloudHypervisorRequests.Role = .snapshot, inPieces size: Int = .max
    ) throws -> [Request] {
        var requests = CloudHypervisorRequests(role, limits: limits)
        var found: [Request] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            requests.append(rest.prefix(size))
            rest = rest.dropFirst(size)
            while let request = try requests.next() { found.append(request) }
        }
        return found
    }

    private static let machine =
        message(.start) + message(.memoryFile, [1, 0, 0, 0]) + message(.memoryFile, [0, 1, 0, 0])
        + message(.config, [7, 8]) + message(.state, [9])

    @Test("are understood in any pieces", arguments: [1, 3, 16, 17, 1000])
    func pieces(size: Int) throws {
        let found = try Self.read(Self.machine + Self.message(.completePaused), inPieces: size)
        #expect(
            found == [
                .start, .memoryFile(slot: 1), .memoryFile(slot: 256), .config([7, 8]), .state([9]),
                .complete(isPaused: true),
            ])
    }

    @Test("may be given up before the end, and not after it")
    func abandon() throws {
        #expect(try Self.read(Self.message(.abandon)) == [.abandon])
        #expect(try Self.read(Self.machine + Self.message(.abandon)).last == .abandon)
        let complete = Self.machine + Self.message(.complete)
        #expect(try Self.read(complete).last == .complete(isPaused: false))
        #expect(throws: HandoffError.malformed("abandon comes at the wrong time")) {
            try Self.read(complete + Self.message(.abandon))
        }
    }

    @Test(
        "have an order",
        arguments: [
            message(.config, [1]), message(.state, [1]), message(.complete), message(.start) + message(.start),
            message(.start) + message(.state, [1]), message(.start) + message(.complete), message(.memory),
            machine + message(.memoryFile, [3, 0, 0, 0]), machine + message(.state, [1]),
            message(.pageFault, [UInt8](repeating: 0, count: 16)),
        ])
    func order(bytes: [UInt8]) {
        #expect(throws: HandoffError.self) { try Self.read(bytes) }
    }

    @Test("have limits, which hold before the bytes come")
    func limits() {
        let start = Self.message(.start)
        #expect(throws: HandoffError.tooLong(limit: 100)) {
            try Self.read(start + CloudHypervisorHeader(.config, length: 101).bytes)
        }
        #expect(throws: HandoffError.self) { try Self.read(start + CloudHypervisorHeader(.config).bytes) }
        #expect(throws: HandoffError.self) {
            try Self.read(start + CloudHypervisorHeader(.memoryFile, length: .max).bytes)
        }
        let slots = (UInt8(1)...3).flatMap { Self.message(.memoryFile, [$0, 0, 0, 0]) }
        #expect(throws: HandoffError.tooManyRegions(limit: 2)) { try Self.read(start + slots) }
        #expect(throws: HandoffError.malformed("slot 1 comes twice")) {
            try Self.read(start + Self.message(.memoryFile, [1, 0, 0, 0]) + Self.message(.memoryFile, [1, 0, 0, 0]))
        }
        var newer = CloudHypervisorHeader(.start)
        newer.version = 1
        #expect(throws: HandoffError.version(1)) { try Self.read(newer.bytes) }
    }

    @Test("for pages have nothing but an address and a length")
    func faults() throws {
        let payload: [UInt8] = [0, 16, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0]
        let found = try Self.read(
            Self.message(.pageFault, payload) + Self.message(.pageFault, payload) + Self.message(.abandon), as: .faults,
            inPieces: 5)
        let fault = Request.pageFault(address: 4096, byteCount: 8192)
        #expect(found == [fault, fault, .abandon])
        for command in [CloudHypervisorCommand.start, .state, .complete] {
            #expect(throws: HandoffError.self) { try Self.read(Self.message(command), as: .faults) }
        }
    }
}

@Suite("The memory's layout of Cloud Hypervisor")
struct CloudHypervisorLayoutTests {
    private static let page = PageSize.base.bytes

    private static func read(_ mappings: String) throws -> [CloudHypervisorLayout.Slot] {
        let text =
            #"{"vm_config":{"a":[1]},"memory_manager_data":{"x":{},"guest_ram_mappings":[\#(mappings)],"y":null}}"#
        return try CloudHypervisorLayout(config: Array(text.utf8), limits: CloudHypervisorLimits(slots: 2)).slots
    }

    private static func mapping(_ slot: UInt64, _ address: UInt64, _ size: UInt64, _ offset: UInt64) -> String {
        #"{"slot":\#(slot),"gpa":\#(address),"size":\#(size),"virtio_mem":false,"file_offset":\#(offset)}"#
    }

    @Test("is in the order of addresses")
    func order() throws {
        let page = UInt64(Self.page)
        let slots = try Self.read(Self.mapping(3, 8 * page, page, 2 * page) + "," + Self.mapping(1, 0, 2 * page, 0))
        #expect(
            slots == [
                .init(number: 1, address: 0, byteCount: 2 * Self.page, fileOffset: 0),
                .init(number: 3, address: 8 * page, byteCount: Self.page, fileOffset: 2 * Self.page),
            ])
        #expect(slots[1].contains(8 * page, Self.page))
        #expect(!slots[1].contains(8 * page, 2 * Self.page) && !slots[1].contains(7 * page, Self.page))
        #expect(!slots[1].contains(.max, Self.page) && !slots[0].contains(0, .max))
    }

    @Test("is refused if it cannot be memory")
    func refusals() {
        let page = UInt64(Self.page)
        let wrong = [
            "", Self.mapping(0, 1, page, 0), Self.mapping(0, 0, 1, 0), Self.mapping(0, 0, 0, 0),
            Self.mapping(0, 0, page, 1), Self.mapping(1 << 32, 0, page, 0), Self.mapping(0, .max - page + 1, page, 0),
            Self.mapping(0, 0, 1 << 63, 0), Self.mapping(0, 0, page, 1 << 63),
            Self.mapping(0, 0, 2 * page, 0) + "," + Self.mapping(1, page, page, 0),
            Self.mapping(0, 0, page, 0) + "," + Self.mapping(0, page, page, 0),
            [0, 1, 2].map { Self.mapping($0, $0 * page, page, 0) }.joined(separator: ","),
            #"{"slot":0,"gpa":0,"size":4096}"#, #"{"slot":0,"slot":0,"gpa":0,"size":4096,"file_offset":0}"#, "7",
        ]
        for mappings in wrong {
            #expect(throws: HandoffError.self, "\(mappings)") { try Self.read(mappings) }
        }
        for text in ["{}", "[]", #"{"memory_manager_data":{}}"#, #"{"memory_manager_data":7}"#, ""] {
            #expect(throws: HandoffError.self) {
                try CloudHypervisorLayout(config: Array(text.utf8), limits: CloudHypervisorLimits())
            }
        }
    }
}
