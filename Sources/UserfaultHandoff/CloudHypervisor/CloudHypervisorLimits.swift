/// How much Cloud Hypervisor may ask for.
public struct CloudHypervisorLimits: Hashable, Sendable {
    /// The most bytes of a machine's configuration.
    public var configBytes: Int

    /// The most bytes of a machine's state.
    public var stateBytes: Int

    /// The most slots of memory of one machine.
    public var slots: Int

    /// How long a single answer or request may take.
    public var patience: Duration

    /// Limits that suit virtual machines.
    public init(
        configBytes: Int = 16 << 20, stateBytes: Int = 256 << 20, slots: Int = 1024, patience: Duration = .seconds(60)
    ) {
        precondition(configBytes > 0 && stateBytes > 0 && slots > 0 && patience > .zero, "a limit is more than zero")
        self.configBytes = configBytes
        self.stateBytes = stateBytes
        self.slots = slots
        self.patience = patience
    }
}
