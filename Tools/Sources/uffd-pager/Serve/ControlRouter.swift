import FoundationEssentials
import Hummingbird
import NIOCore

/// The paths of the control socket; openapi.json describes them.
enum ControlRouter {
    static func make(_ registry: MachineRegistry, _ limits: RequestLimits) -> Router<ControlContext> {
        let router = Router(context: ControlContext.self)
        router.add(middleware: ErrorMiddleware())
        router.get("healthz") { _, _ in "ok\n" }
        router.get("openapi.json") { _, _ in
            Response(
                status: .ok, headers: [.contentType: "application/json"],
                body: ResponseBody(byteBuffer: ByteBuffer(string: OpenAPI.document)))
        }
        router.get("metrics") { _, _ in
            Response(
                status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
                body: ResponseBody(byteBuffer: ByteBuffer(string: registry.metrics)))
        }
        let machines = router.group("v1/machines")
        machines.get { _, _ in MachineList(machines: registry.documents) }
        machines.post { request, context in
            let specification = try await request.document(MachineSpecification.self, context)
            try await limits.loading.run {
                try await onOwnThread { () throws(ControlError) in try registry.add(specification) }
            }
            return EditedResponse(status: .created, response: try registry.document(of: specification.name))
        }
        machines.get(":name") { _, context in try registry.document(of: try context.name) }
        machines.delete(":name") { request, context in
            let ending = try request.ending
            let (name, seconds) = (try context.name, try request.limit)
            try await (ending == .load ? limits.removing : limits.ending).run {
                try await registry.remove(name, ending: ending, within: seconds)
            }
            return HTTPResponse.Status.noContent
        }
        machines.post(":name/prefetch") { request, context in
            let body = try await request.document(PrefetchRequest.self, context)
            let name = try context.name
            return try await limits.loading.run {
                SessionCount(
                    sessions: try await onOwnThread { () throws(ControlError) in
                        try registry.prefetch(name, body.workingSet)
                    })
            }
        }
        for (verb, isPaused) in [("pause", true), ("resume", false)] {
            machines.post(":name/\(verb)") { _, context in
                SessionCount(sessions: try registry.setPaused(try context.name, isPaused))
            }
        }
        machines.post(":name/populate") { request, context in
            try await limits.loading.run {
                SessionCount(sessions: try await registry.populate(try context.name, within: try request.limit))
            }
        }
        machines.post(":name/drain") { request, context in
            try await limits.loading.run {
                SessionCount(sessions: try await registry.drain(try context.name, within: try request.limit))
            }
        }
        return router
    }
}

extension ControlContext {
    fileprivate var name: String {
        get throws { try parameters.require("name") }
    }
}

extension Request {
    /// The body, which is JSON.
    ///
    /// - Throws: ``JSONDocument/Complaint``; ``ControlError/tooLong(_:)``.
    fileprivate func document<Document: Decodable>(
        _: Document.Type, _ context: ControlContext
    ) async throws -> Document {
        do {
            let body = try await body.collect(upTo: context.maxUploadSize)
            return try JSONDocument.read(Document.self, from: Data(body.readableBytesView))
        } catch is NIOTooManyBytesError {
            throw ControlError.tooLong(context.maxUploadSize)
        }
    }

    /// `?seconds=N`: how long to load; without a limit if it is not there.
    fileprivate var limit: Duration? {
        get throws {
            guard let text = uri.queryParameters.get("seconds") else { return nil }
            guard let seconds = Int(text), (0...86_400).contains(seconds) else {
                throw HTTPError(.badRequest, message: "seconds is a number from 0 to 86400")
            }
            return .seconds(seconds)
        }
    }

    /// `?ending=load|poison|kill`; load if it is not there.
    fileprivate var ending: SessionEnding {
        get throws {
            guard let text = uri.queryParameters.get("ending") else { return .load }
            guard let ending = SessionEnding(rawValue: text) else {
                throw HTTPError(.badRequest, message: "ending is load, poison or kill")
            }
            return ending
        }
    }
}
