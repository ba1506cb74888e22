"""What connector authors import: nouns, the connector classes, the HTTP client, authentication and values."""
