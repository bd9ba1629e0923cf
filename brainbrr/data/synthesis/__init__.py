"""The parts of the synthetic corpus: geometry, noise, background, seizures, look-alikes, artefacts, plan, corpus."""
