"""All that is Elasticsearch: the store, the templates it needs, the client. Nothing else imports the client library."""
