# pip install "psycopg[binary]"
import os, sqlite3, time, urllib.error, urllib.request
import psycopg

postgres = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
replica = sqlite3.connect(os.environ["REPLICA_URL"], uri=True)  # file:replica.db


def write(note):
    """Writes, and has the token of its own transaction."""
    sql = "insert into orders (note) values (%s) returning id, pgflume.token()"
    return postgres.execute(sql, [note]).fetchone()


def waited(token):
    """Either: the worker tells when it has arrived. 504 means not yet."""
    url = f"{os.environ['WORKER_URL']}/wait?token={token}&timeout=10"
    try:
        return urllib.request.urlopen(url).status == 200
    except urllib.error.HTTPError:
        return False


ARRIVED = """
SELECT token < seen_below
    OR token < seen_before AND token NOT IN (SELECT value FROM json_each(running))
FROM _pgflume_syncs, (SELECT CAST(? AS INTEGER) AS token)
WHERE kind = 'queue'"""


def arrived(token):
    """Or: the replica tells it, without the worker."""
    for _ in range(200):
        if replica.execute(ARRIVED, [token]).fetchone() == (1,):
            return True
        time.sleep(0.05)
    return False


for is_there in [waited, arrived]:
    row, token = write("by " + is_there.__name__)
    if not is_there(token):
        raise SystemExit("not there yet: read from Postgres")
    print(*replica.execute("SELECT note FROM orders WHERE id = ?", [row]).fetchone())
