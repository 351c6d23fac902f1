"""DynamoDB: one table in plain Python values, the calls on the wire, the schema."""
