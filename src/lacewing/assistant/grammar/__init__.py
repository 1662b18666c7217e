"""What an answer must look like: JSON, a schema, a regex or a grammar, followed token by token with llguidance."""
