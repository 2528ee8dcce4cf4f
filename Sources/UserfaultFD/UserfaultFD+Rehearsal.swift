extension UserfaultFD {
    /// Does once all that a thread does that reads fork events, so that it takes no memory from the heap later.
    ///
    /// A fork of this process holds the allocator's locks until its event is read. The calls themselves allocate nothing,
    /// but what the language's runtime makes when a type is first used does come from the heap: in programs that are not
    /// optimized, nearly every call has some.
    func rehearse() {
        guard let stop = try? EventFD(), let set = try? PollSet() else { return }
        var ready = ReadyBatch(capacity: 1)
        var batch = EventBatch(capacity: 1)
        var table = DescriptorTable(capacity: 1)
        stop.signal()
        try? set.add(stop, token: 0)
        for timeout in [Duration.zero, .milliseconds(1)] {
            _ = try? set.wait(into: &ready, timeout: timeout)
            _ = try? poll(timeout: timeout)
            _ = try? poll(timeout: timeout, stop: stop)
        }
        _ = ready.next()
        // Of a descriptor in blocking mode it would wait for a message.
        if isNonBlocking { _ = try? read(into: &batch) }
        _ = batch.next()
        _ = batch.nextPageFault()
        _ = isProcessGone
        let nowhere = AddressRange(start: 0, count: 0)
        // Failures too: each throws in its own way, and asks what it means.
        _ = try? zeropage(nowhere)
        _ = try? copy(from: 0, to: nowhere)
        _ = try? wake(nowhere)
        _ = try? poison(nowhere)
        guard let twin = try? duplicate(), case .inserted(let place) = table.insert(twin) else { return }
        table.withDescriptor(at: place) { (child) -> Void in
            try? set.add(child, token: 1)
            try? set.remove(child)
        }
        table.removeEnded { _, _ in }
        _ = table.remove(at: place)
        _ = stop.clear()
    }
}
