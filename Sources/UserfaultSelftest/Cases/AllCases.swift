/// Every case there is, in the order in which they run.
package enum AllCases {
    /// One line for each file of `Cases/`.
    static let themes: [any CaseTheme.Type] = [
        HandshakeCases.self,
        OpeningCases.self,
        CallOrderCases.self,
        RegistrationCases.self,
        RegistrationErrorCases.self,
        CompatibilityCases.self,
        ReadingCases.self,
        PollingCases.self,
        AddressCases.self,
        WakeCases.self,
        ReleaseCases.self,
        MinorFaultCases.self,
        EventsCases.self,
        MappingChangingCases.self,
        EventForkCases.self,
        EventRemoveCases.self,
        EventUnmapCases.self,
        EventRemapCases.self,
        ContinueCases.self,
        CopyCases.self,
        MoveCases.self,
        MoveModelCases.self,
        MoveObstacleCases.self,
        MoveErrorCases.self,
        WriteProtectCases.self,
        WriteProtectSurvivalCases.self,
        ProtectErrorCases.self,
        WriteProtectUnpopulatedCases.self,
        WriteProtectForkCases.self,
        WriteProtectRemapCases.self,
        WriteProtectHugeCases.self,
        WriteProtectAsyncCases.self,
        FillCases.self,
        FillErrorsCases.self,
        StressCases.self,
        ReadWriteProtectCases.self,
    ]

    package static let cases: [SelftestCase] = themes.flatMap { $0.cases }
}
