-- `seq` counts insertions; `at` is @timestamp in microseconds since 1970; `body` is the document as it was written.
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    at INTEGER NOT NULL,
    dataset TEXT NOT NULL,
    kind TEXT NOT NULL,
    action TEXT NOT NULL,
    container_id TEXT,
    container_name TEXT,
    rule_id TEXT,
    alert_group TEXT,
    body TEXT NOT NULL
);
CREATE INDEX event_at ON event (at, id);
CREATE INDEX event_dataset ON event (dataset, at, id);
CREATE INDEX event_container_id ON event (container_id, at, id) WHERE container_id IS NOT NULL;
CREATE INDEX event_container_name ON event (container_name, at, id) WHERE container_name IS NOT NULL;
CREATE INDEX event_alert_group ON event (alert_group, at) WHERE alert_group IS NOT NULL;

-- Kept in the same transactions as the events, so that `status` need not count millions of rows.
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO counter VALUES ('documents', 0), ('removed_age', 0), ('removed_size', 0);
