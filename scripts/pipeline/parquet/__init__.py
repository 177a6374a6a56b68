"""SOURCE to a Parquet dataset repository: convert, verify, card, croissant.json, publish."""
