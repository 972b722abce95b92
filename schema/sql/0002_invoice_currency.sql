-- 0002: an advertiser may pay for campaigns in several currencies, and each currency has an
-- invoice of its own: a run goes on one invoice an advertiser and currency. What a final
-- invoice holds never changes; neither does what the ledger and a posted run's certificate say.
ALTER TABLE invoice_run ADD COLUMN currency char(3);
UPDATE invoice_run r SET currency = i.currency FROM invoice i WHERE i.id = r.invoice_id;
ALTER TABLE invoice_run ALTER COLUMN currency SET NOT NULL,
    DROP CONSTRAINT invoice_run_run_id_advertiser_id_key,
    ADD UNIQUE (run_id, advertiser_id, currency);
CREATE TRIGGER invoice_run_immutable BEFORE INSERT OR UPDATE OR DELETE ON invoice_run
    FOR EACH ROW EXECUTE FUNCTION invoice_line_immutable();

CREATE FUNCTION ledger_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what stands in % never changes: post a correction', TG_TABLE_NAME
        USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER ledger_entry_immutable BEFORE UPDATE OR DELETE ON ledger_entry
    FOR EACH ROW EXECUTE FUNCTION ledger_immutable();
CREATE TRIGGER ledger_transaction_immutable BEFORE UPDATE OR DELETE ON ledger_transaction
    FOR EACH ROW EXECUTE FUNCTION ledger_immutable();

-- A blocked run posted nothing, so it may go, and its certificate with it.
CREATE FUNCTION certificate_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' OR
       EXISTS (SELECT 1 FROM billing_run WHERE id = OLD.run_id AND status = 'posted') THEN
        RAISE EXCEPTION 'the certificate of run % never changes', OLD.run_id
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER certificate_immutable BEFORE UPDATE OR DELETE ON certificate
    FOR EACH ROW EXECUTE FUNCTION certificate_immutable();
