import UserfaultPager

/// The metrics of all machines and of the cache, in Prometheus' text format.
struct PrometheusText {
    private(set) var text = ""

    init(_ machines: [MachineDocument], _ cache: ChunkCache.Statistics?) {
        gauge("uffd_pager_machines", "Machines that are known.") { $0("", machines.count) }
        gauge("uffd_pager_sessions", "Clients whose memory is served.") { sample in
            for machine in machines { sample(Self.labels(machine), machine.sessions.count) }
        }
        gauge("uffd_pager_memory_bytes", "Memory that is served.") { sample in
            for machine in machines { sample(Self.labels(machine), machine.sessions.reduce(0) { $0 + $1.bytes }) }
        }
        gauge("uffd_pager_outstanding_faults", "Page faults that are being served.") { sample in
            for machine in machines {
                sample(Self.labels(machine), machine.sessions.reduce(0) { $0 + $1.outstandingFaults })
            }
        }
        gauge("uffd_pager_paused", "Whether the machine is paused: 1 if it is.") { sample in
            for machine in machines { sample(Self.labels(machine), machine.state == .paused ? 1 : 0) }
        }
        gauge("uffd_pager_loading_bytes", "Memory that populate and drain have left to load.") { sample in
            for machine in machines {
                sample(Self.labels(machine), machine.sessions.reduce(0) { $0 + ($1.loading?.bytesLeft ?? 0) })
            }
        }
        gauge("uffd_pager_queued_faults", "Page faults that wait for a thread.") { sample in
            for machine in machines {
                sample(Self.labels(machine), machine.sessions.reduce(0) { $0 + $1.queuedFaults })
            }
        }
        counter(
            "uffd_pager_faults_total", "Page faults, by kind.", machines, "kind",
            [("missing", \.missingFaults), ("minor", \.minorFaults), ("write_protect", \.writeProtectFaults)])
        counter(
            "uffd_pager_pages_total", "Pages that were filled, by how.", machines, "how",
            [
                ("copied", \.pagesCopied), ("zeroed", \.pagesZeroed), ("continued", \.pagesContinued),
                ("poisoned", \.pagesPoisoned),
            ])
        counter("uffd_pager_read_ahead_pages_total", "Pages that nobody waited for.", machines, \.pagesReadAhead)
        counter("uffd_pager_filled_bytes_total", "Bytes that were filled.", machines, \.filledBytes)
        counter("uffd_pager_events_total", "Changes of the clients' address spaces.", machines, \.events)
        counter("uffd_pager_retries_total", "How often memory was read again after a failure.", machines, \.retries)
        counter("uffd_pager_failed_pages_total", "Pages that could not be loaded.", machines, \.failures)
        counter("uffd_pager_stray_faults_total", "Page faults outside of every region.", machines, \.strayFaults)
        if let cache { add(cache) }
    }

    private mutating func add(_ cache: ChunkCache.Statistics) {
        family("uffd_pager_cache_chunks_total", "Chunks that were wanted, by where they came from.", "counter") {
            sample in
            for (from, count) in [("memory", cache.memoryHits), ("disk", cache.diskHits), ("source", cache.loads)] {
                sample("{from=\"\(from)\"}", count)
            }
        }
        family("uffd_pager_cache_passed_on_total", "Requests that went past the cache.", "counter") {
            $0("", cache.passedOn)
        }
        family("uffd_pager_cache_written_chunks_total", "Chunks that were written to the cache's file.", "counter") {
            $0("", cache.writes)
        }
        family("uffd_pager_cache_damaged_chunks_total", "Chunks of the cache's file that were damaged.", "counter") {
            $0("", cache.damaged)
        }
    }

    private typealias Number = KeyPath<Totals, UInt64>

    private static func labels(_ machine: MachineDocument, _ more: String = "") -> String {
        // A name has no character that would have to be escaped.
        "{machine=\"\(machine.name)\"\(more)}"
    }

    private mutating func head(_ name: String, _ help: String, _ type: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
    }

    private mutating func gauge(_ name: String, _ help: String, _ samples: ((String, Int) -> Void) -> Void) {
        family(name, help, "gauge", samples)
    }

    private mutating func family(
        _ name: String, _ help: String, _ type: String, _ samples: ((String, Int) -> Void) -> Void
    ) {
        head(name, help, type)
        var lines = ""
        samples { labels, value in lines += "\(name)\(labels) \(value)\n" }
        text += lines
    }

    private mutating func counter(_ name: String, _ help: String, _ machines: [MachineDocument], _ number: Number) {
        head(name, help, "counter")
        for machine in machines { text += "\(name)\(Self.labels(machine)) \(machine.totals[keyPath: number])\n" }
    }

    private mutating func counter(
        _ name: String, _ help: String, _ machines: [MachineDocument], _ label: String, _ numbers: [(String, Number)]
    ) {
        head(name, help, "counter")
        for machine in machines {
            for (value, number) in numbers {
                let labels = Self.labels(machine, ",\(label)=\"\(value)\"")
                text += "\(name)\(labels) \(machine.totals[keyPath: number])\n"
            }
        }
    }
}
