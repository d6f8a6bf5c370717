// Reads its own write. Modules: github.com/lib/pq, github.com/mattn/go-sqlite3.
package main

import (
	"database/sql"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	_ "github.com/lib/pq"
	_ "github.com/mattn/go-sqlite3"
)

var postgres, replica *sql.DB

// Writes, and has the token of its own transaction.
func write(note string) (id int64, token string, err error) {
	const text = "insert into orders (note) values ($1) returning id, pgflume.token()"
	err = postgres.QueryRow(text, note).Scan(&id, &token)
	return
}

// Either: the worker tells when it has arrived. 504 means not yet.
func waited(token string) (bool, error) {
	answer, err := http.Get(os.Getenv("WORKER_URL") + "/wait?token=" + token + "&timeout=10")
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK, nil
}

const hasArrived = `
SELECT token < seen_below
    OR token < seen_before AND token NOT IN (SELECT value FROM json_each(running))
FROM _pgflume_syncs, (SELECT CAST(? AS INTEGER) AS token)
WHERE kind = 'queue'`

// Or: the replica tells it, without the worker.
func arrived(token string) (bool, error) {
	for tries := 0; tries < 200; tries++ {
		var there sql.NullBool
		err := replica.QueryRow(hasArrived, token).Scan(&there)
		if err != nil && err != sql.ErrNoRows {
			return false, err
		}
		if there.Bool {
			return true, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return false, nil
}

func shown(note string, isThere func(string) (bool, error)) error {
	id, token, err := write(note)
	if err != nil {
		return err
	}
	if there, err := isThere(token); err != nil || !there {
		return fmt.Errorf("not there yet: read from Postgres (%v)", err)
	}
	var found string
	if err := replica.QueryRow("SELECT note FROM orders WHERE id = ?", id).Scan(&found); err != nil {
		return err
	}
	fmt.Println(found)
	return nil
}

func main() {
	var err error
	if postgres, err = sql.Open("postgres", os.Getenv("DATABASE_URL")); err != nil {
		log.Fatal(err)
	}
	if replica, err = sql.Open("sqlite3", os.Getenv("REPLICA_URL")); err != nil {
		log.Fatal(err)
	}
	if err := shown("by waited", waited); err != nil {
		log.Fatal(err)
	}
	if err := shown("by arrived", arrived); err != nil {
		log.Fatal(err)
	}
}
