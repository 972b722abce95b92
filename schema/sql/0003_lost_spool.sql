-- 0003: an ingest log may be lost with its machine. What it had received since reported_until it
-- never told; with Kafka those clicks that were acknowledged are in the archive all the same, and
-- are counted there, once it is known (`clickledger relay forget`) that the log is gone.
ALTER TABLE ingest_spool
    ADD COLUMN heard_at timestamptz,        -- when it told its counts last
    ADD COLUMN lost_at timestamptz,         -- it is gone, and never comes back
    ADD COLUMN recounted_until timestamptz; -- hours of receipt counted from the archive, if any

-- Clicks of a lost log's unreported hours, as the archive has them. A key may stand in more than
-- one row: readers add up. received_count stays what ingest said, and nothing else.
CREATE TABLE received_recount (
    hour         timestamptz NOT NULL,
    spool        bigint NOT NULL REFERENCES ingest_spool,
    incarnation  bigint NOT NULL,
    account_id   integer NOT NULL,
    campaign_id  text NOT NULL,
    quarter      timestamptz NOT NULL,
    clicks       bigint NOT NULL CHECK (clicks > 0)
);
CREATE INDEX received_recount_quarter ON received_recount (quarter);

-- Of received: what was counted from the archive, in all and by log (SPOOL:CLICKS,...).
ALTER TABLE certificate
    ADD COLUMN recounted bigint NOT NULL DEFAULT 0,
    ADD COLUMN recounted_spools text NOT NULL DEFAULT '';
