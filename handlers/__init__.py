"""The operations of both APIs: one class for each document, one method for each operationId."""
