"""The operations of both APIs: one class per document, one method per operationId."""
