"""The schema of the PostgreSQL ledger: tables, and a function for each verb. How they work together is told in
`ledgers.postgres`.

Every name is qualified and each verb sets its own search path, so whatever a role's is, it does not matter. The functions that
have none are called by the verbs alone.
"""

from __future__ import annotations

CREATE_SCHEMA = "CREATE SCHEMA creditguard"

CREATE_META = """
    CREATE TABLE creditguard.meta (key text PRIMARY KEY, value text NOT NULL);
    INSERT INTO creditguard.meta VALUES ('schema_version', '1'), ('level', '0')"""

_TABLES = """
    CREATE TABLE creditguard.accounts (
        account text PRIMARY KEY,
        admitted numeric NOT NULL DEFAULT 0,     -- micro-credits; these four only ever grow
        released numeric NOT NULL DEFAULT 0,
        started bigint NOT NULL DEFAULT 0,       -- runs
        ended bigint NOT NULL DEFAULT 0,
        reading text,                            -- the latest balance that was published, as JSON
        published_at timestamptz,
        claimant text,                           -- who is reading the balance for all
        claim_ends timestamptz
    );
    CREATE TABLE creditguard.owners (
        id text PRIMARY KEY,
        host text NOT NULL,
        boot text NOT NULL,
        pid bigint NOT NULL,
        started text NOT NULL,
        lease_ends timestamptz NOT NULL,
        lapses integer NOT NULL DEFAULT 0
    );
    CREATE TABLE creditguard.holds (
        run_id text PRIMARY KEY,
        account text NOT NULL,
        owner text NOT NULL REFERENCES creditguard.owners (id),
        amount bigint NOT NULL,                  -- micro-credits
        job text NOT NULL,
        labels text NOT NULL,
        since timestamptz NOT NULL,
        lapses integer NOT NULL
    );
    CREATE INDEX holds_of_owner ON creditguard.holds (owner, account);
    CREATE TABLE creditguard.history (
        seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        run_id text NOT NULL UNIQUE,
        account text NOT NULL,
        job text NOT NULL,
        finished_at timestamptz NOT NULL,
        report text NOT NULL
    );
    CREATE INDEX history_by_age ON creditguard.history (finished_at)
    """

# Processes of the first version go on beside ours until they are started anew: nothing of theirs changes.
_MORE_TABLES = """
    ALTER TABLE creditguard.accounts ADD COLUMN lagging boolean NOT NULL DEFAULT false;
    ALTER TABLE creditguard.owners ADD COLUMN ttl double precision NOT NULL DEFAULT 60;  -- seconds
    ALTER TABLE creditguard.holds
        ADD COLUMN budget bigint,                -- micro-credits: all that was admitted, however the hold shrank
        ADD COLUMN balance numeric,              -- on the account at the admission
        ADD COLUMN extended text;                -- the latest extension, by a name of its own
    ALTER TABLE creditguard.history ADD COLUMN abandoned boolean NOT NULL DEFAULT false;  -- the run may yet say more
    CREATE INDEX history_of_job ON creditguard.history (job, finished_at, seq, account);
    CREATE INDEX history_of_account ON creditguard.history (account, finished_at, seq);
    CREATE TABLE creditguard.tombstones (run_id text PRIMARY KEY, released_at timestamptz NOT NULL);
    CREATE INDEX tombstones_by_age ON creditguard.tombstones (released_at);
    CREATE TABLE creditguard.clocks (
        clock text PRIMARY KEY,                  -- of a machine that runs, or of one process
        ahead double precision NOT NULL,         -- seconds by which the server's is ahead of it
        since timestamptz NOT NULL,              -- since when that is so
        seen timestamptz NOT NULL
    );
    CREATE TABLE creditguard.waiters (           -- for room, in the order in which they came
        seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        run_id text NOT NULL UNIQUE,
        account text NOT NULL,
        amount bigint NOT NULL,                  -- micro-credits that are kept: none if it takes a top-up
        kept_until timestamptz NOT NULL
    );
    CREATE INDEX waiters_of_account ON creditguard.waiters (account, seq)
    """

_FUNCTIONS = """
    -- The ledger's clock, as it is now and not when the transaction began. In a function of its own so that tests can set it.
    CREATE FUNCTION creditguard.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.clock_timestamp()';

    -- Since when the clock of whoever asks (p_clock; p_ticks seconds that it counts through every sleep; p_wall, the time that
    -- its host believes in) has agreed with the server's. What the server wrote before has no meaning to it.
    CREATE FUNCTION creditguard.steady(p_clock text, p_ticks double precision, p_wall double precision) RETURNS timestamptz
    LANGUAGE plpgsql AS $$
    DECLARE
        t timestamptz := creditguard.clock();
        is_ahead double precision := date_part('epoch', t) - p_ticks;
        known creditguard.clocks;
    BEGIN
        SELECT * INTO known FROM creditguard.clocks c WHERE c.clock = p_clock;
        IF known.clock IS NOT NULL AND abs(is_ahead - known.ahead) < 10 THEN
            IF t - known.seen > interval '1 hour' THEN  -- both clocks drift
                UPDATE creditguard.clocks c SET ahead = is_ahead, seen = t WHERE c.clock = p_clock;
            END IF;
            RETURN known.since;
        END IF;
        -- Seen for the first time, and two clocks that do not know each other agree: the server's is taken to have been right.
        IF known.clock IS NULL AND abs(date_part('epoch', t) - p_wall) < 10
            AND NOT EXISTS (SELECT 1 FROM creditguard.owners o WHERE o.lease_ends > t + (o.ttl + 10) * interval '1 second')
        THEN
            known.since := '-infinity';
        ELSE
            known.since := t;
        END IF;
        INSERT INTO creditguard.clocks AS c VALUES (p_clock, is_ahead, known.since, t)
        ON CONFLICT (clock) DO UPDATE SET ahead = excluded.ahead, since = excluded.since, seen = excluded.seen;
        RETURN known.since;
    END $$;

    -- Whether a lease has ended. One that was written before p_steady is taken to have been renewed then.
    CREATE FUNCTION creditguard.is_over(o creditguard.owners, p_steady timestamptz) RETURNS boolean
    LANGUAGE plpgsql AS $$
    DECLARE
        t timestamptz := creditguard.clock();
        lasts interval := o.ttl * interval '1 second';
    BEGIN
        RETURN (o.lease_ends <= t OR o.lease_ends > t + lasts + interval '10 seconds')
            AND (p_steady + lasts <= t OR (p_steady <= o.lease_ends - lasts AND o.lease_ends <= t));
    END $$;

    -- Verbs on one run come one at a time: a release must not pass by a reservation that is being made. Before all other locks.
    CREATE FUNCTION creditguard.lock_run(p_run text, p_wait text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM set_config('lock_timeout', p_wait, true), pg_advisory_xact_lock(7165064744911531332 # hashtext(p_run));
    END $$;

    -- The account's row, locked, and made if need be.
    CREATE FUNCTION creditguard.lock_account(p_account text) RETURNS creditguard.accounts LANGUAGE plpgsql AS $$
    DECLARE a creditguard.accounts;
    BEGIN
        SELECT * INTO a FROM creditguard.accounts x WHERE x.account = p_account FOR UPDATE;
        IF NOT FOUND THEN
            INSERT INTO creditguard.accounts (account) VALUES (p_account) ON CONFLICT DO NOTHING;
            SELECT * INTO STRICT a FROM creditguard.accounts x WHERE x.account = p_account FOR UPDATE;
        END IF;
        -- NaN is greater than any number here, so it must not come to a comparison.
        IF NOT (a.released >= 0 AND a.released <= a.admitted AND a.admitted < 1e60) THEN
            RAISE EXCEPTION 'the totals of an account are damaged';
        END IF;
        RETURN a;
    END $$;

    -- How much of what is free is kept for the first run in the account's queue that is before this one. A server whose clock was
    -- set back must not keep a place for ever: none is kept for longer than an hour.
    CREATE FUNCTION creditguard.kept_for_others(
        p_run text, p_available numeric, p_released numeric, a creditguard.accounts
    ) RETURNS numeric LANGUAGE plpgsql AS $$
    DECLARE
        t timestamptz := creditguard.clock();
        first bigint;
    BEGIN
        DELETE FROM creditguard.waiters w
        WHERE w.account = a.account AND w.kept_until NOT BETWEEN t AND t + interval '1 hour';
        SELECT w.amount INTO first FROM creditguard.waiters w
        WHERE w.account = a.account AND w.amount BETWEEN 1 AND p_available AND w.seq < coalesce(
            (SELECT own.seq FROM creditguard.waiters own WHERE own.run_id = p_run), 9223372036854775807)
        ORDER BY w.seq LIMIT 1;
        RETURN least(coalesce(first, 0), greatest(p_available - a.admitted + least(a.released, p_released), 0));
    END $$;

    CREATE FUNCTION creditguard.reserve(
        p_run text, p_account text, p_amount bigint, p_job text, p_labels text, p_balance numeric,
        p_available numeric, p_released numeric, p_owner text[], p_ttl double precision,
        p_clock text, p_ticks double precision, p_wall double precision, p_wait text, p_waits double precision,
        OUT admitted boolean, OUT held numeric
    ) LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    DECLARE
        own bigint;
        ended boolean;
        kept numeric := 0;
        a creditguard.accounts;
    BEGIN
        PERFORM creditguard.lock_run(p_run, p_wait);
        SELECT (SELECT h.amount FROM creditguard.holds h WHERE h.run_id = p_run),
               EXISTS (SELECT 1 FROM creditguard.history h WHERE h.run_id = p_run)
                   OR EXISTS (SELECT 1 FROM creditguard.tombstones s WHERE s.run_id = p_run)
        INTO own, ended;
        IF own IS NULL AND NOT ended THEN
            IF p_waits > 0 OR EXISTS (SELECT 1 FROM creditguard.waiters w WHERE w.account = p_account) THEN
                a := creditguard.lock_account(p_account);
                kept := creditguard.kept_for_others(p_run, p_available, p_released, a);
            END IF;
            FOR attempt IN 1..2 LOOP
                -- The rule, in the statement that locks the account. A mark from before the ledger was made anew may be ahead of
                -- its totals: never count less than admitted - released. NaN is greater than any number here.
                UPDATE creditguard.accounts x SET admitted = x.admitted + p_amount, started = x.started + 1
                WHERE x.account = p_account AND x.released >= 0 AND x.released <= x.admitted AND x.admitted < 1e60
                    AND (p_available IS NULL
                        OR p_available - kept - x.admitted + least(x.released, p_released) >= p_amount)
                RETURNING x.* INTO a;
                admitted := FOUND;
                EXIT WHEN admitted;
                a := creditguard.lock_account(p_account);  -- the account may be there only since the statement looked
            END LOOP;
            IF admitted THEN
                held := a.admitted - p_amount - least(a.released, p_released);
                INSERT INTO creditguard.holds (run_id, account, owner, amount, job, labels, since, lapses, budget, balance)
                VALUES (p_run, p_account, p_owner[1], p_amount, p_job, p_labels, creditguard.clock(),
                    creditguard.take_lease(p_owner, p_ttl, p_clock, p_ticks, p_wall), p_amount, p_balance);
                RETURN;
            END IF;
            IF p_waits > 0 THEN
                INSERT INTO creditguard.waiters AS w (run_id, account, amount, kept_until)
                VALUES (p_run, p_account, CASE WHEN p_amount <= p_available THEN p_amount ELSE 0 END,
                    creditguard.clock() + least(p_waits, 3600) * interval '1 second')
                ON CONFLICT (run_id) DO UPDATE SET amount = excluded.amount, kept_until = excluded.kept_until;
            END IF;
        END IF;
        a := creditguard.lock_account(p_account);
        SELECT h.amount INTO own FROM creditguard.holds h WHERE h.run_id = p_run;  -- a sweep may have had the lock
        admitted := FOUND;
        held := a.admitted - least(a.released, p_released) - coalesce(own, 0) + kept;
    END $$;

    -- The number of an owner's lapses, with a lease that runs. One that is as good as new is left alone.
    CREATE FUNCTION creditguard.take_lease(
        p_owner text[], p_ttl double precision, p_clock text, p_ticks double precision, p_wall double precision
    ) RETURNS integer LANGUAGE plpgsql AS $$
    DECLARE
        t timestamptz := creditguard.clock();
        lasts interval := p_ttl * interval '1 second';
        steady timestamptz;
        o creditguard.owners;
    BEGIN
        SELECT * INTO o FROM creditguard.owners x WHERE x.id = p_owner[1];
        IF o.lease_ends BETWEEN t + lasts * 0.9 AND t + lasts THEN
            RETURN o.lapses;
        END IF;
        steady := creditguard.steady(p_clock, p_ticks, p_wall);
        INSERT INTO creditguard.owners AS x (id, host, boot, pid, started, lease_ends, ttl)
        VALUES (p_owner[1], p_owner[2], p_owner[3], p_owner[4]::bigint, p_owner[5], t + lasts, p_ttl)
        ON CONFLICT (id) DO UPDATE SET
            lapses = x.lapses + creditguard.is_over(x, steady)::integer,
            lease_ends = excluded.lease_ends, ttl = excluded.ttl
        RETURNING x.lapses INTO o.lapses;
        RETURN o.lapses;
    END $$;

    -- Asked once more with the same p_name, after an answer that was lost, it grows no further.
    CREATE FUNCTION creditguard.extend(
        p_run text, p_by bigint, p_name text, p_available numeric, p_released numeric, p_wait text,
        OUT admitted boolean, OUT held numeric, OUT missing boolean
    ) LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    DECLARE
        a creditguard.accounts;
        h creditguard.holds;
    BEGIN
        PERFORM creditguard.lock_run(p_run, p_wait);
        SELECT * INTO h FROM creditguard.holds x WHERE x.run_id = p_run;
        IF FOUND THEN
            a := creditguard.lock_account(h.account);
            SELECT * INTO h FROM creditguard.holds x WHERE x.run_id = p_run;  -- a sweep may have had the lock
        END IF;
        missing := NOT FOUND;
        held := coalesce(a.admitted - least(a.released, p_released), 0);
        admitted := NOT missing AND (p_available IS NULL OR p_available - held >= p_by);
        IF h.extended = p_name THEN
            admitted := true;
            held := held - p_by;
        ELSIF admitted THEN
            UPDATE creditguard.holds x SET
                amount = x.amount + p_by, budget = coalesce(x.budget, x.amount) + p_by, extended = p_name
            WHERE x.run_id = p_run;
            UPDATE creditguard.accounts x SET admitted = x.admitted + p_by WHERE x.account = a.account;
        END IF;
    END $$;

    CREATE FUNCTION creditguard.shrink(p_run text, p_to bigint, p_budget bigint, p_wait text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    DECLARE
        a creditguard.accounts;
        h creditguard.holds;
    BEGIN
        PERFORM creditguard.lock_run(p_run, p_wait);
        SELECT * INTO h FROM creditguard.holds x WHERE x.run_id = p_run;
        IF h.amount > p_to AND coalesce(h.budget, h.amount) = coalesce(p_budget, h.budget, h.amount) THEN
            a := creditguard.lock_account(h.account);
            SELECT * INTO h FROM creditguard.holds x WHERE x.run_id = p_run;
            IF h.amount > p_to AND NOT a.lagging THEN
                UPDATE creditguard.holds x SET amount = p_to, budget = coalesce(x.budget, x.amount) WHERE x.run_id = p_run;
                UPDATE creditguard.accounts x SET released = x.released + h.amount - p_to WHERE x.account = h.account;
                PERFORM set_config('synchronous_commit', 'off', true);
            END IF;
        END IF;
    END $$;

    CREATE FUNCTION creditguard.set_lagging(p_account text, p_lagging boolean, p_wait text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    BEGIN
        PERFORM set_config('lock_timeout', p_wait, true), creditguard.lock_account(p_account);
        UPDATE creditguard.accounts x SET lagging = p_lagging WHERE x.account = p_account AND x.lagging <> p_lagging;
    END $$;

    CREATE FUNCTION creditguard.renew(
        p_owner text, p_runs text[], p_ttl double precision,
        p_clock text, p_ticks double precision, p_wall double precision, p_wait text
    ) RETURNS SETOF text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    DECLARE steady timestamptz;
    BEGIN
        PERFORM set_config('lock_timeout', p_wait, true), set_config('synchronous_commit', 'off', true);
        steady := creditguard.steady(p_clock, p_ticks, p_wall);
        UPDATE creditguard.owners x SET
            lapses = x.lapses + creditguard.is_over(x, steady)::integer,
            lease_ends = creditguard.clock() + p_ttl * interval '1 second', ttl = p_ttl
        WHERE x.id = p_owner;
        -- Lapses are counted and never reset. A hold that is behind its owner's count has been through one.
        RETURN QUERY SELECT asked.run FROM unnest(p_runs) AS asked (run) WHERE NOT EXISTS (
            SELECT 1 FROM creditguard.holds h JOIN creditguard.owners x ON x.id = h.owner
            WHERE h.run_id = asked.run AND x.id = p_owner AND h.lapses = x.lapses);
    END $$;

    -- Whether there was a hold, which is gone now. The account is locked before the hold, as everywhere: by its update, which is
    -- taken back if a sweep was quicker.
    CREATE FUNCTION creditguard.let_go(p_run text) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE h creditguard.holds;
    BEGIN
        SELECT * INTO h FROM creditguard.holds x WHERE x.run_id = p_run;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        UPDATE creditguard.accounts a SET released = a.released + h.amount, ended = a.ended + 1 WHERE a.account = h.account;
        DELETE FROM creditguard.holds x WHERE x.run_id = p_run;
        IF NOT FOUND THEN
            UPDATE creditguard.accounts a SET released = a.released - h.amount, ended = a.ended - 1 WHERE a.account = h.account;
            RETURN false;
        END IF;
        RETURN true;
    END $$;

    CREATE FUNCTION creditguard.release(p_run text, p_wait text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    BEGIN
        PERFORM creditguard.lock_run(p_run, p_wait);
        INSERT INTO creditguard.tombstones VALUES (p_run, creditguard.clock()) ON CONFLICT DO NOTHING;
        RETURN creditguard.let_go(p_run);
    END $$;

    -- The first report stays, unless it was filed for a run that was taken for dead, and was not.
    CREATE FUNCTION creditguard.settle(p_run text, p_account text, p_job text, p_report text, p_wait text) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    DECLARE filed bigint;
    BEGIN
        PERFORM creditguard.lock_run(p_run, p_wait), creditguard.let_go(p_run);
        INSERT INTO creditguard.history AS x (run_id, account, job, finished_at, report)
        VALUES (p_run, p_account, p_job, creditguard.clock(), p_report)
        ON CONFLICT (run_id) DO UPDATE SET
            account = excluded.account, job = excluded.job, finished_at = excluded.finished_at, report = excluded.report,
            abandoned = false
            WHERE x.abandoned
        RETURNING x.seq INTO filed;
        RETURN filed;
    END $$;

    -- Who has holds on the account, and whether its lease has ended.
    CREATE FUNCTION creditguard.owners_of(
        p_account text, p_clock text, p_ticks double precision, p_wall double precision
    ) RETURNS TABLE (id text, host text, boot text, pid bigint, started text, is_over boolean)
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    DECLARE steady timestamptz := creditguard.steady(p_clock, p_ticks, p_wall);
    BEGIN
        RETURN QUERY SELECT o.id, o.host, o.boot, o.pid, o.started, creditguard.is_over(o, steady) FROM creditguard.owners o
        WHERE EXISTS (SELECT 1 FROM creditguard.holds h WHERE h.owner = o.id AND h.account = p_account);
    END $$;

    -- Free the holds of the dead, and of those whose lease has ended: one that has been renewed since it was looked at is let
    -- off. Their reports come later in the same transaction, which ends by itself if whoever makes them is stopped meanwhile.
    CREATE FUNCTION creditguard.free(
        p_account text, p_dead text[], p_over text[], p_clock text, p_ticks double precision, p_wall double precision,
        p_wait text
    ) RETURNS TABLE (
        run_id text, account text, amount bigint, job text, labels text, budget bigint, balance numeric,
        id text, host text, boot text, pid bigint, started text, since double precision, lease_ends double precision
    ) LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    DECLARE
        steady timestamptz;
        doomed text[];
    BEGIN
        PERFORM set_config('lock_timeout', p_wait, true), set_config('idle_in_transaction_session_timeout', p_wait, true);
        PERFORM creditguard.lock_account(p_account);
        steady := creditguard.steady(p_clock, p_ticks, p_wall);
        PERFORM 1 FROM creditguard.owners o WHERE o.id = ANY (p_dead || p_over) ORDER BY o.id FOR UPDATE;
        SELECT array_agg(o.id) INTO doomed FROM creditguard.owners o
        WHERE o.id = ANY (p_dead) OR (o.id = ANY (p_over) AND creditguard.is_over(o, steady));
        RETURN QUERY WITH freed AS (
            DELETE FROM creditguard.holds h WHERE h.owner = ANY (doomed) AND h.account = p_account RETURNING h.*
        ), counted AS (
            UPDATE creditguard.accounts x SET released = x.released + t.amount, ended = x.ended + t.runs
            FROM (SELECT sum(f.amount) AS amount, count(*) AS runs FROM freed f) AS t
            WHERE x.account = p_account AND t.runs > 0
        )
        SELECT f.run_id, f.account, f.amount, f.job, f.labels, f.budget, f.balance, o.id, o.host, o.boot, o.pid, o.started,
               extract(epoch FROM f.since)::float8, extract(epoch FROM o.lease_ends)::float8
        FROM freed f JOIN creditguard.owners o ON o.id = f.owner ORDER BY f.since, f.run_id;
    END $$;

    -- What can wait, a hundred rows at a time.
    CREATE FUNCTION creditguard.tidy(p_keep double precision) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    DECLARE t timestamptz := creditguard.clock();
    BEGIN
        PERFORM set_config('synchronous_commit', 'off', true);
        DELETE FROM creditguard.history WHERE seq IN (
            SELECT h.seq FROM creditguard.history h WHERE h.finished_at < t - p_keep * interval '1 second'
            ORDER BY h.finished_at LIMIT 100 FOR UPDATE SKIP LOCKED);
        DELETE FROM creditguard.tombstones WHERE run_id IN (
            SELECT s.run_id FROM creditguard.tombstones s WHERE s.released_at < t - interval '1 hour'
            LIMIT 200 FOR UPDATE SKIP LOCKED);
        DELETE FROM creditguard.clocks c WHERE c.seen < t - interval '30 days';
        -- Whoever reserves for an owner takes its lease first, so no hold can come to an owner that passes this test.
        DELETE FROM creditguard.owners WHERE id IN (
            SELECT o.id FROM creditguard.owners o
            WHERE o.lease_ends <= t AND NOT EXISTS (SELECT 1 FROM creditguard.holds h WHERE h.owner = o.id)
            LIMIT 100 FOR UPDATE SKIP LOCKED);
    END $$;

    -- Whatever ends a place in the queue is told by what is written anyway.
    CREATE FUNCTION creditguard.end_place() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    BEGIN
        DELETE FROM creditguard.waiters w WHERE w.run_id = NEW.run_id;
        RETURN NULL;
    END $$;
    CREATE TRIGGER place_ends AFTER INSERT ON creditguard.holds FOR EACH ROW EXECUTE FUNCTION creditguard.end_place();
    CREATE TRIGGER place_ends AFTER INSERT ON creditguard.tombstones FOR EACH ROW EXECUTE FUNCTION creditguard.end_place();
    CREATE TRIGGER place_ends AFTER INSERT ON creditguard.history FOR EACH ROW EXECUTE FUNCTION creditguard.end_place();

    CREATE FUNCTION creditguard.recent(p_account text, p_max_age double precision, OUT reading text, OUT claimed boolean)
    RETURNS SETOF record LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
    DECLARE t timestamptz := creditguard.clock();
    BEGIN
        RETURN QUERY SELECT
            CASE WHEN a.published_at > t - p_max_age * interval '1 second' AND a.published_at <= t THEN a.reading END,
            coalesce(a.claim_ends > t, false)
        FROM creditguard.accounts a WHERE a.account = p_account;
    END $$;

    CREATE FUNCTION creditguard.claim(
        p_account text, p_claimant text, p_max_age double precision, p_claim double precision, p_wait text
    ) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    DECLARE t timestamptz;
    BEGIN
        PERFORM set_config('lock_timeout', p_wait, true), set_config('synchronous_commit', 'off', true);
        PERFORM creditguard.lock_account(p_account);
        t := creditguard.clock();
        UPDATE creditguard.accounts x SET claimant = p_claimant, claim_ends = t + p_claim * interval '1 second'
        WHERE x.account = p_account AND (x.claimant = p_claimant
            OR (coalesce(x.claim_ends <= t, true)
                AND coalesce(x.published_at <= t - p_max_age * interval '1 second' OR x.published_at > t, true)));
        RETURN FOUND;
    END $$;

    CREATE FUNCTION creditguard.publish(p_account text, p_reading text, p_wait text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    BEGIN
        PERFORM set_config('lock_timeout', p_wait, true), set_config('synchronous_commit', 'off', true);
        PERFORM creditguard.lock_account(p_account);
        UPDATE creditguard.accounts x SET
            reading = p_reading, published_at = creditguard.clock(), claimant = NULL, claim_ends = NULL
        WHERE x.account = p_account;
    END $$
    """


# Who may use the tables that there were may use the new ones.
_GRANTS = """
    DO $do$
    DECLARE granted record;
    BEGIN
        FOR granted IN
            SELECT privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS role
            FROM pg_catalog.pg_class, aclexplode(relacl) WHERE oid = 'creditguard.holds'::regclass AND grantee <> relowner
        LOOP
            EXECUTE format('GRANT %s ON creditguard.tombstones, creditguard.clocks, creditguard.waiters TO %s',
                granted.privilege_type, granted.role);
        END LOOP;
    END $do$"""


MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (_TABLES,),
    (_MORE_TABLES, _GRANTS, _FUNCTIONS),
)
"""How to come from each level of the schema to the next. Only ever append, and only what older programs can live with;
otherwise raise OLDEST, and `schema_version` in the schema with it."""

OLDEST = 1
"""The `schema_version` of schemas that this program can use: a program that knows a lesser one refuses them."""

META = "SELECT key, value, current_setting('server_encoding') FROM creditguard.meta"
ENCODING = "SELECT current_setting('server_encoding')"
SET_LEVEL = """
    INSERT INTO creditguard.meta VALUES ('level', %(level)s)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value"""
HAS_SCHEMA = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = 'creditguard'"
HAS_META = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = 'creditguard' AND tablename = 'meta'"
# b"creditgd", until the transaction ends: which it does by itself if this process is stopped in the middle of it.
LOCK_SCHEMA = """
    SELECT set_config('idle_in_transaction_session_timeout', %(wait)s, true), pg_advisory_xact_lock(7165064744911531332)"""

# Each statement of a function must see what was committed while it waited for a lock, whatever the role's default is.
READ_COMMITTED = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"

MARK = "SELECT admitted, released, started, ended, lagging FROM creditguard.accounts WHERE account = %(account)s"

HOLDS = """
    SELECT h.run_id, h.account, h.amount, h.job, h.labels, h.budget, h.balance, o.id, o.host, o.boot, o.pid, o.started,
           extract(epoch FROM h.since)::float8, extract(epoch FROM o.lease_ends)::float8
    FROM creditguard.holds h JOIN creditguard.owners o ON o.id = h.owner
    WHERE %(account)s::text IS NULL OR h.account = %(account)s
    ORDER BY h.since, h.run_id LIMIT %(limit)s"""

FILE_ABANDONED = """
    INSERT INTO creditguard.history (run_id, account, job, finished_at, report, abandoned)
    SELECT f.run_id, %(account)s, f.job, creditguard.clock(), f.report, true
    FROM unnest(%(run_ids)s::text[], %(jobs)s::text[], %(reports)s::text[]) AS f (run_id, job, report)
    ON CONFLICT (run_id) DO NOTHING"""


def call(function: str, *parameters: str) -> str:
    """A verb: one message, one transaction."""
    given = ", ".join(f"%({parameter})s" for parameter in parameters)
    return f"{READ_COMMITTED}; SELECT * FROM creditguard.{function}({given})"  # noqa: S608


def history(*, job: bool, account: bool, newest_first: bool) -> str:
    """The reports of all, of a job, of an account, or of both, from a time (and the row at that time) on: so many rows."""
    chosen = [f"{name} = %({name})s" for name, given in (("job", job), ("account", account)) if given]
    chosen.append(
        "finished_at >= %(since)s::timestamptz"
        if newest_first
        else "(finished_at, seq) > (%(since)s::timestamptz, %(seq)s)"
    )
    order = "DESC" if newest_first else "ASC"
    return f"""
        SELECT report, extract(epoch FROM finished_at)::float8, seq, finished_at::text AS exactly FROM creditguard.history
        WHERE {" AND ".join(chosen)} ORDER BY finished_at {order}, seq {order} LIMIT %(limit)s"""  # noqa: S608
