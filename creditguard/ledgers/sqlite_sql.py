"""The schema and the statements of the SQLite ledger. How they work together is told in `ledgers.sqlite`."""

# ruff: noqa: S608 - statements are put together from constants, and no value ever goes into their text

from __future__ import annotations

PRUNE_AT_MOST = 100

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
        "INSERT INTO meta VALUES ('schema_version', 1)",
        """CREATE TABLE accounts (
            account TEXT PRIMARY KEY,
            admitted TEXT NOT NULL DEFAULT '0',      -- micro-credits; these four only ever grow
            released TEXT NOT NULL DEFAULT '0',
            started INTEGER NOT NULL DEFAULT 0,      -- runs
            ended INTEGER NOT NULL DEFAULT 0,
            reading TEXT,                            -- the latest balance that was published, as JSON
            published_at REAL,                       -- on the elapsed clock
            claim_ends REAL,                         -- until then somebody is reading the balance for all
            boot TEXT                                -- to which these two times belong
        ) WITHOUT ROWID""",
        """CREATE TABLE owners (
            id TEXT PRIMARY KEY,
            host TEXT NOT NULL,
            boot TEXT NOT NULL,
            pid INTEGER NOT NULL,
            started TEXT NOT NULL,
            renewed REAL NOT NULL,                   -- on the running clock
            lease_ends REAL NOT NULL,
            lapses INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID""",
        """CREATE TABLE holds (
            run_id TEXT NOT NULL UNIQUE,
            account TEXT NOT NULL,
            owner TEXT NOT NULL,
            amount INTEGER NOT NULL,                 -- micro-credits
            job TEXT NOT NULL,
            labels TEXT NOT NULL,
            since REAL NOT NULL,                     -- Unix time
            lapses INTEGER NOT NULL
        )""",
        "CREATE INDEX holds_of_owner ON holds (owner, account)",
        """CREATE TABLE history (
            seq INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL UNIQUE,
            account TEXT NOT NULL,
            job TEXT NOT NULL,
            finished_at REAL NOT NULL,               -- Unix time
            report TEXT NOT NULL
        )""",
        "CREATE INDEX history_by_age ON history (finished_at)",
    ),
    # Processes of the first version go on beside ours until they are started anew, so nothing of theirs changes. Their
    # INSERT INTO holds names no columns: what we know more of a hold has a table of its own.
    (
        "ALTER TABLE accounts ADD COLUMN lagging INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE owners ADD COLUMN clock TEXT NOT NULL DEFAULT ''",  # the name of the running clock; '' has no peer
        "ALTER TABLE owners ADD COLUMN renewals INTEGER NOT NULL DEFAULT 0",
        """CREATE TABLE budgets (
            run_id TEXT PRIMARY KEY,
            budget INTEGER NOT NULL,                 -- micro-credits: all that was admitted, however the hold shrank
            balance TEXT                             -- on the account at the admission
        ) WITHOUT ROWID""",
        """CREATE TRIGGER budget_ends AFTER DELETE ON holds BEGIN
            DELETE FROM budgets WHERE run_id = OLD.run_id;
        END""",
        """CREATE TABLE tombstones (
            seq INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL UNIQUE,
            released_at REAL NOT NULL                -- Unix time
        )""",
        """CREATE TABLE watches (
            owner TEXT NOT NULL,
            clock TEXT NOT NULL,                     -- of those who watch
            renewals INTEGER NOT NULL,               -- of the owner, as they were ...
            renewed REAL NOT NULL,
            since REAL NOT NULL,                     -- ... since then
            PRIMARY KEY (owner, clock)
        ) WITHOUT ROWID""",
        "ALTER TABLE history ADD COLUMN abandoned INTEGER NOT NULL DEFAULT 0",  # the run may yet say more
        "CREATE INDEX history_of_job ON history (job, finished_at, account)",
        "CREATE INDEX history_of_account ON history (account, finished_at)",
    ),
    # The queue of those who wait for room. Whatever ends a place is told by what is written anyway.
    (
        """CREATE TABLE waiters (
            seq INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL UNIQUE,
            account TEXT NOT NULL,
            amount INTEGER NOT NULL,                 -- micro-credits that are kept: none if it takes a top-up
            kept_until REAL NOT NULL,                -- on the elapsed clock
            boot TEXT NOT NULL                       -- to which this time belongs
        )""",
        "CREATE INDEX waiters_of_account ON waiters (account)",
        *(
            f"""CREATE TRIGGER place_ends_with_{table} AFTER INSERT ON {table} BEGIN
                DELETE FROM waiters WHERE run_id = NEW.run_id;
            END"""
            for table in ("holds", "tombstones", "history")
        ),
    ),
)
"""How to come from each level of the schema to the next. Only ever append, and only what older programs can live with;
otherwise raise OLDEST, and `schema_version` in the file with it."""

OLDEST = 1
"""The `schema_version` of files that this program can use: a program that knows a lesser one refuses them."""

MARK = "SELECT admitted, released, started, ended, lagging FROM accounts WHERE account = ?"

# All that an admission has to know, in one row.
ASK = """
    SELECT a.admitted, a.released, a.started, a.ended, a.lagging,
           (SELECT amount FROM holds WHERE run_id = :run_id),
           EXISTS (SELECT 1 FROM history WHERE run_id = :run_id)
               OR EXISTS (SELECT 1 FROM tombstones WHERE run_id = :run_id),
           o.lapses, o.lease_ends, EXISTS (SELECT 1 FROM waiters)
    FROM (SELECT 1) LEFT JOIN accounts a ON a.account = :account LEFT JOIN owners o ON o.id = :owner"""

FORGET_LAPSED_PLACES = "DELETE FROM waiters WHERE boot = :boot AND kept_until <= :now"
FORGET_OTHER_PLACES = "DELETE FROM waiters WHERE boot <> :boot AND :boot <> ''"

# For whom what is free is kept: the first in the queue, before whoever asks, that needs no top-up.
AHEAD = """
    SELECT amount FROM waiters
    WHERE account = :account AND boot = :boot AND amount BETWEEN 1 AND :available
        AND seq < ifnull((SELECT seq FROM waiters WHERE run_id = :run_id), 9223372036854775807)
    ORDER BY seq LIMIT 1"""

TAKE_PLACE = """
    INSERT INTO waiters (run_id, account, amount, kept_until, boot)
    SELECT :run_id, :account, :amount, :now + :waits, :boot WHERE :boot <> ''
    ON CONFLICT (run_id) DO UPDATE SET
        amount = excluded.amount, kept_until = excluded.kept_until, boot = excluded.boot"""

READING = """
    SELECT CASE WHEN boot = :boot AND :boot <> '' AND published_at > :now - :max_age AND published_at <= :now THEN reading END,
           boot = :boot AND :boot <> '' AND claim_ends > :now
    FROM accounts WHERE account = :account"""

CLAIM = """
    INSERT INTO accounts (account, claim_ends, boot) VALUES (:account, :now + :claim, :boot)
    ON CONFLICT (account) DO UPDATE SET
        claim_ends = excluded.claim_ends, boot = excluded.boot,
        published_at = CASE WHEN boot = excluded.boot THEN published_at END"""

PUBLISH = """
    INSERT INTO accounts (account, reading, published_at, boot) VALUES (:account, :reading, :now, :boot)
    ON CONFLICT (account) DO UPDATE SET
        reading = excluded.reading, published_at = excluded.published_at, boot = excluded.boot, claim_ends = NULL"""

# An owner's own clock judges its own lease; it cannot have gone back, unless the process was moved to another machine.
_LAPSED = "(lease_ends <= :now OR renewed > :now)"

TAKE_LEASE = f"""
    INSERT INTO owners (id, host, boot, pid, started, renewed, lease_ends, clock)
    VALUES (:owner, :host, :boot, :pid, :started, :now, :now + :ttl, :clock)
    ON CONFLICT (id) DO UPDATE SET
        lapses = lapses + {_LAPSED}, renewals = renewals + 1,
        renewed = excluded.renewed, lease_ends = excluded.lease_ends, clock = excluded.clock
    RETURNING lapses"""

RENEW_LEASE = f"""
    UPDATE owners SET
        lapses = lapses + {_LAPSED}, renewals = renewals + 1, renewed = :now, lease_ends = :now + :ttl, clock = :clock
    WHERE id = :owner RETURNING lapses"""

# Of a lease on a clock that we share. One from the future is from before the machine was started anew, unless a clock is not
# what it seems: then neither can be said.
_SHARED = "(clock = :clock AND :clock <> '')"
_OVER = f"""({_SHARED} AND (lease_ends <= :now
    OR (renewed > :now AND boot <> :boot AND boot <> '' AND :boot <> '')))"""
_RUNS = f"({_SHARED} AND renewed <= :now AND lease_ends > :now)"

OWNERS_IN_ACCOUNT = f"""
    SELECT id, host, boot, pid, started, {_RUNS} FROM owners
    WHERE EXISTS (SELECT 1 FROM holds WHERE owner = owners.id AND account = :account)"""

LEASE = f"SELECT {_OVER}, {_RUNS} FROM owners WHERE id = :owner"

WATCH = """
    INSERT INTO watches (owner, clock, renewals, renewed, since)
    SELECT id, :clock, renewals, renewed, :now FROM owners WHERE id = :owner
    ON CONFLICT (owner, clock) DO UPDATE SET
        since = CASE WHEN (renewals, renewed) = (excluded.renewals, excluded.renewed) THEN min(since, :now) ELSE :now END,
        renewals = excluded.renewals, renewed = excluded.renewed
    RETURNING :now - since >= (SELECT lease_ends - renewed FROM owners WHERE id = owner)"""

_LIVE = """
    SELECT h.run_id, h.account, h.amount, h.job, h.labels, b.budget, b.balance,
           o.id, o.host, o.boot, o.pid, o.started, h.since, o.lease_ends, o.renewed, o.clock
    FROM holds h JOIN owners o ON o.id = h.owner LEFT JOIN budgets b ON b.run_id = h.run_id"""

HOLDS_OF_OWNER = f"{_LIVE} WHERE h.owner = :owner AND h.account = :account ORDER BY h.rowid"

# In the order in which they were admitted: no index is as cheap, and the wall clock may have been set in between.
HOLDS = f"""{_LIVE}
    WHERE h.rowid IN (
        SELECT rowid FROM holds WHERE :account IS NULL OR account = :account ORDER BY rowid LIMIT :limit)
    ORDER BY h.rowid"""

FREE_OWNER = "DELETE FROM holds WHERE owner = :owner AND account = :account"

# An owner that has no holds is not missed: its next admission makes it known again.
FORGET_OWNERS = f"""
    DELETE FROM owners WHERE NOT {_RUNS} AND NOT EXISTS (SELECT 1 FROM holds WHERE owner = owners.id)"""
FORGET_WATCHES = "DELETE FROM watches WHERE NOT EXISTS (SELECT 1 FROM owners WHERE id = watches.owner)"

BURY = "INSERT INTO tombstones (run_id, released_at) VALUES (?, ?) ON CONFLICT (run_id) DO NOTHING"
# Two old ones go for each new one that comes.
UNEARTH = "DELETE FROM tombstones WHERE released_at < ? AND seq IN (SELECT seq FROM tombstones ORDER BY seq LIMIT 2)"

# The first report stays, unless it was filed for a run that was taken for dead, and was not.
FILE = """
    INSERT INTO history (run_id, account, job, finished_at, report, abandoned) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (run_id) DO UPDATE SET
        account = excluded.account, job = excluded.job, finished_at = excluded.finished_at, report = excluded.report, abandoned = excluded.abandoned
        WHERE abandoned AND NOT excluded.abandoned
    RETURNING seq"""

PRUNE = f"""
    DELETE FROM history WHERE seq IN (
        SELECT seq FROM history WHERE finished_at < ? ORDER BY finished_at LIMIT {PRUNE_AT_MOST})"""


def history(*, job: bool, account: bool, newest_first: bool) -> str:
    """The reports of all, of a job, of an account, or of both, from a time (and the row at that time) on: so many rows."""
    # Of both, the index of jobs knows the account too. The plus sign keeps SQLite from choosing the other one.
    chosen = ["job = :job"] * job + ["+account = :account" if job else "account = :account"] * account
    chosen.append("finished_at >= :since" if newest_first else "(finished_at, seq) > (:since, :seq)")
    order = "DESC" if newest_first else "ASC"
    return f"""
        SELECT report, finished_at, seq FROM history WHERE {" AND ".join(chosen)}
        ORDER BY finished_at {order}, seq {order} LIMIT :limit"""


HOLD = """
    SELECT account, amount, ifnull((SELECT budget FROM budgets WHERE run_id = h.run_id), amount)
    FROM holds h WHERE run_id = ?"""

# Before a hold changes: it was the whole budget until now.
KEEP_BUDGET = "INSERT INTO budgets (run_id, budget) VALUES (?, ?) ON CONFLICT (run_id) DO NOTHING"
