"""The peers that Datahog is measured against, each written as its own experts would."""
