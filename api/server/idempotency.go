package server

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
)

// keepKeys is how long an Idempotency-Key is remembered.
const keepKeys = 24 * time.Hour

// Repeatable is embedded in the input of a POST that can be sent again without being done again. It follows
// draft-ietf-httpapi-idempotency-key-header. The database needs the table idempotency_key.
type Repeatable struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" doc:"Names this request. Sent again by you within 24 hours with the same body it is answered as the first time, and not done again." example:"8e03978e-40d5-43dd-bc93-6894a57f9324"`
	RawBody        []byte
}

// One lock a key and caller: whoever does not get it meets a request that still runs.
const lockKey = `select pg_try_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 0))`

const selectKey = `
select request_hash, answer
from idempotency_key
where user_name = $1 and key = $2 and created_at > now() - $3::interval`

const insertKey = `
with expired as (
    select ctid from idempotency_key where created_at <= now() - $5::interval order by created_at limit 100 for update skip locked
), swept as (
    delete from idempotency_key where ctid in (select ctid from expired) and (user_name, key) <> ($1, $2)
)
insert into idempotency_key (user_name, key, request_hash, answer)
values ($1, $2, $3, $4)
on conflict (user_name, key) do update
set request_hash = excluded.request_hash, answer = excluded.answer, created_at = now()`

// Once runs act and remembers what it returned, in one transaction. When the caller has sent the same request under the
// same key before, it returns what act returned then, and act does not run. A failure of act is not remembered. Without a
// key it only runs act, with no transaction. T is stored as JSON: it must hold no personal data. Errors: conflict while the first request still runs,
// validation-error when the key belongs to another request, and those of act.
func Once[T any](ctx context.Context, db *postgres.DB, in Repeatable, operation string, act func(postgres.Conn) (T, error)) (T, error) {
	if in.IdempotencyKey == "" {
		return act(db)
	}
	var result T
	user := identity.FromContext(ctx).User
	hash := sha256.Sum256(slices.Concat([]byte(operation+"\x00"), in.RawBody))
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		known, err := recall(ctx, tx, user, in.IdempotencyKey, hash[:], &result)
		if err != nil || known {
			return err
		}
		if result, err = act(tx); err != nil {
			return err
		}
		answer, err := json.Marshal(result)
		if err != nil {
			return fmt.Errorf("remember an Idempotency-Key: %w", err)
		}
		if _, err := tx.Exec(ctx, insertKey, user, in.IdempotencyKey, hash[:], answer, keepKeys); err != nil {
			return fmt.Errorf("remember an Idempotency-Key: %w", err)
		}
		return nil
	})
	return result, err
}

// KeyReused says that the caller's Idempotency-Key belongs to another request.
func KeyReused() *Problem {
	return Invalid(Fault{Field: "Idempotency-Key", Code: "reused",
		Detail: "you have sent another request under this key within 24 hours: take a new key for a new request"})
}

// recall reads what the key was answered with before.
func recall(ctx context.Context, tx pgx.Tx, user, key string, hash []byte, result any) (known bool, err error) {
	var free bool
	if err := tx.QueryRow(ctx, lockKey, user, key).Scan(&free); err != nil {
		return false, fmt.Errorf("lock an Idempotency-Key: %w", err)
	}
	if !free {
		return false, Conflict("a request with this Idempotency-Key is still being worked on: wait, then send it again")
	}
	var stored, answer []byte
	err = tx.QueryRow(ctx, selectKey, user, key, keepKeys).Scan(&stored, &answer)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look up an Idempotency-Key: %w", err)
	case !slices.Equal(stored, hash):
		return false, KeyReused()
	}
	if err := json.Unmarshal(answer, result); err != nil {
		return false, fmt.Errorf("read the answer of an Idempotency-Key: %w", err)
	}
	return true, nil
}
