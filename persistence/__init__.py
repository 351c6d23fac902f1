"""The DynamoDB tables, the repositories over them, and the record types."""
