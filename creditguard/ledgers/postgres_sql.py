"""The statements of the PostgreSQL ledger. How they work together is told in `ledgers.postgres`.

A text of several statements is sent as one message and runs as one transaction; its answer is that of the last statement.
"""

# ruff: noqa: S608 - statements are put together from constants, and no value ever goes into their text

from __future__ import annotations

CREATE_SCHEMA = "CREATE SCHEMA creditguard"

CREATE_META = """
    CREATE TABLE creditguard.meta (key text PRIMARY KEY, value text NOT NULL);
    INSERT INTO creditguard.meta VALUES ('schema_version', '0')"""

MIGRATIONS: tuple[str, ...] = (
    """
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
    """,
)
"""How to come from each version of the schema to the next. Only ever append."""

VERSION = "SELECT value FROM creditguard.meta WHERE key = 'schema_version'"
SET_VERSION = "UPDATE creditguard.meta SET value = %(version)s WHERE key = 'schema_version'"
HAS_SCHEMA = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = 'creditguard'"
HAS_META = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = 'creditguard' AND tablename = 'meta'"
READ_COMMITTED = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
LOCK_SCHEMA = "SELECT pg_advisory_xact_lock(7165064744911531332)"  # b"creditgd", until the transaction ends

MARK = "SELECT admitted, released, started, ended FROM creditguard.accounts WHERE account = %(account)s"

HOLDS = """
    SELECT h.run_id, h.account, h.amount, h.job, h.labels, o.id, o.host, o.boot, o.pid, o.started,
           extract(epoch FROM h.since)::float8, extract(epoch FROM o.lease_ends)::float8
    FROM creditguard.holds h JOIN creditguard.owners o ON o.id = h.owner
    WHERE %(account)s::text IS NULL OR h.account = %(account)s
    ORDER BY h.since, h.run_id"""

HISTORY = """
    SELECT report, extract(epoch FROM finished_at)::float8 FROM creditguard.history
    WHERE (%(account)s::text IS NULL OR account = %(account)s) AND (%(job)s::text IS NULL OR job = %(job)s)
    ORDER BY finished_at DESC, seq DESC LIMIT %(limit)s"""


class Statements:
    """The statements that ask the clock, with `clock` for it, or wait for locks, for at most `wait` seconds."""

    def __init__(self, clock: str, wait: float) -> None:
        # Each statement must see what was committed while it waited for the lock, whatever the database's default is.
        begin = f"""
            {READ_COMMITTED};
            SET LOCAL lock_timeout = {wait * 1000:.0f};
            SET LOCAL statement_timeout = {wait * 2000:.0f};"""

        # Locks the account's row, having made it if need be, and changes nothing.
        lock_account = """
            INSERT INTO creditguard.accounts AS a (account) VALUES (%(account)s)
            ON CONFLICT (account) DO UPDATE SET account = a.account WHERE false;"""

        lock_account_of_run = """
            SELECT 1 FROM creditguard.accounts
            WHERE account = (SELECT account FROM creditguard.holds WHERE run_id = %(run_id)s) FOR UPDATE;"""

        # A mark from before the ledger was made anew may be ahead of its totals: never count less than admitted - released.
        self.reserve: str = f"""{begin}{lock_account}
            WITH asked AS (
                SELECT a.admitted - least(a.released, %(released)s::numeric) AS held,
                       (SELECT amount FROM creditguard.holds WHERE run_id = %(run_id)s) AS own,
                       EXISTS (SELECT 1 FROM creditguard.history WHERE run_id = %(run_id)s) AS ended
                FROM creditguard.accounts a WHERE a.account = %(account)s
            ), granted AS (
                SELECT true AS yes FROM asked
                WHERE own IS NULL AND NOT ended
                  AND (%(available)s::numeric IS NULL OR %(available)s::numeric - held >= %(amount)s)
            ), lease AS (
                INSERT INTO creditguard.owners AS o (id, host, boot, pid, started, lease_ends)
                SELECT %(owner)s, %(host)s, %(boot)s, %(pid)s, %(started)s, {clock} + %(ttl)s * interval '1 second'
                FROM granted
                ON CONFLICT (id) DO UPDATE SET
                    lapses = o.lapses + (o.lease_ends <= {clock})::integer, lease_ends = excluded.lease_ends
                RETURNING o.lapses
            ), hold AS (
                INSERT INTO creditguard.holds (run_id, account, owner, amount, job, labels, since, lapses)
                SELECT %(run_id)s, %(account)s, %(owner)s, %(amount)s, %(job)s, %(labels)s, {clock}, lapses FROM lease
            ), counted AS (
                UPDATE creditguard.accounts SET admitted = admitted + %(amount)s, started = accounts.started + 1
                FROM granted WHERE account = %(account)s
            )
            SELECT own IS NOT NULL OR EXISTS (SELECT 1 FROM granted), held - coalesce(own, 0) FROM asked"""

        freed = """
            WITH freed AS (
                DELETE FROM creditguard.holds WHERE run_id = %(run_id)s RETURNING account, amount
            ), counted AS (
                UPDATE creditguard.accounts a SET released = a.released + freed.amount, ended = a.ended + 1
                FROM freed WHERE a.account = freed.account
            )"""

        self.release: str = f"{begin}{lock_account_of_run}{freed} SELECT 1 FROM freed"

        self.settle: str = f"""{begin}{lock_account_of_run}{freed}
            INSERT INTO creditguard.history (run_id, account, job, finished_at, report)
            VALUES (%(run_id)s, %(account)s, %(job)s, {clock}, %(report)s)
            ON CONFLICT (run_id) DO NOTHING RETURNING seq"""

        # Counts a lapse, and never resets a count. A hold that is behind its owner's count has been through a lapse.
        self.renew: str = f"""{begin}
            UPDATE creditguard.owners SET
                lapses = lapses + (lease_ends <= {clock})::integer, lease_ends = {clock} + %(ttl)s * interval '1 second'
            WHERE id = %(owner)s;
            SELECT run_id FROM unnest(%(run_ids)s::text[]) AS asked (run_id)
            WHERE NOT EXISTS (
                SELECT 1 FROM creditguard.holds h JOIN creditguard.owners o ON o.id = h.owner
                WHERE h.run_id = asked.run_id AND o.id = %(owner)s AND h.lapses = o.lapses)"""

        self.owners_in_account: str = f"""
            SELECT id, host, boot, pid, started, lease_ends <= {clock} FROM creditguard.owners o
            WHERE EXISTS (SELECT 1 FROM creditguard.holds WHERE owner = o.id AND account = %(account)s)"""

        # An owner that has renewed its lease since it was looked at is let off: FOR UPDATE looks again.
        self.free: str = f"""{begin}
            SELECT 1 FROM creditguard.accounts WHERE account = %(account)s FOR UPDATE;
            WITH doomed AS (
                SELECT id FROM creditguard.owners
                WHERE id = ANY (%(dead)s::text[]) OR (id = ANY (%(over)s::text[]) AND lease_ends <= {clock})
                ORDER BY id FOR UPDATE
            ), freed AS (
                DELETE FROM creditguard.holds h USING doomed
                WHERE h.owner = doomed.id AND h.account = %(account)s RETURNING h.amount
            ), total AS (
                SELECT coalesce(sum(amount), 0) AS amount, count(*) AS runs FROM freed
            )
            UPDATE creditguard.accounts SET released = released + total.amount, ended = ended + total.runs
            FROM total WHERE account = %(account)s RETURNING total.runs"""

        # Whoever reserves for an owner renews its lease, so no hold can come to an owner that passes this test.
        self.forget_owners: str = f"""
            DELETE FROM creditguard.owners WHERE id IN (
                SELECT id FROM creditguard.owners o
                WHERE lease_ends <= {clock} AND NOT EXISTS (SELECT 1 FROM creditguard.holds WHERE owner = o.id)
                LIMIT 500 FOR UPDATE SKIP LOCKED)"""

        self.prune: str = f"""
            DELETE FROM creditguard.history WHERE seq IN (
                SELECT seq FROM creditguard.history WHERE finished_at < {clock} - %(keep)s * interval '1 second'
                ORDER BY finished_at LIMIT 500 FOR UPDATE SKIP LOCKED)"""

        self.reading: str = f"""
            SELECT CASE WHEN published_at > {clock} - %(max_age)s * interval '1 second' THEN reading END,
                   coalesce(claim_ends > {clock}, false)
            FROM creditguard.accounts WHERE account = %(account)s"""

        self.claim: str = f"""{begin}
            INSERT INTO creditguard.accounts AS a (account, claimant, claim_ends)
            VALUES (%(account)s, %(claimant)s, {clock} + %(claim)s * interval '1 second')
            ON CONFLICT (account) DO UPDATE SET claimant = excluded.claimant, claim_ends = excluded.claim_ends
            WHERE a.claimant = excluded.claimant
               OR (coalesce(a.claim_ends <= {clock}, true)
                   AND coalesce(a.published_at <= {clock} - %(max_age)s * interval '1 second', true))
            RETURNING 1"""

        self.publish: str = f"""{begin}
            INSERT INTO creditguard.accounts (account, reading, published_at)
            VALUES (%(account)s, %(reading)s, {clock})
            ON CONFLICT (account) DO UPDATE SET
                reading = excluded.reading, published_at = excluded.published_at, claimant = NULL, claim_ends = NULL"""
