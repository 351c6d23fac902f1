"""The benches: Datahog measured against its peers, on the same engines, providers and load."""
