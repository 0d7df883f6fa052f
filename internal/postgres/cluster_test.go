package postgres_test

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
)

var oneTable = fstest.MapFS{"001_t.sql": {Data: []byte("create table t (id int primary key, constraint t_positive check (id > 0));")}}

func TestEachTestHasItsOwnMigratedDatabase(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one", "other"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, err := postgres.Open(t.Context(), pgtest.New(t, oneTable), "test")
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			if _, err := pool.Exec(t.Context(), "insert into t values (1)"); err != nil {
				t.Fatal(err)
			}
			_, err = pool.Exec(t.Context(), "insert into t values (1)")
			if got := postgres.ViolatedConstraint(err); got != "t_pkey" {
				t.Errorf("violated constraint %q, want t_pkey (%v)", got, err)
			}
			if postgres.Unavailable(err) {
				t.Error("a violated constraint does not mean that the database is away")
			}
		})
	}
}

func TestClusterRefusesWithoutPassword(t *testing.T) {
	t.Parallel()
	cluster, _ := pgtest.Cluster(t)
	_, err := pgx.Connect(context.Background(), cluster.Config(postgres.Superuser, "", "postgres").URL+"?password=wrong")
	if err == nil || !strings.Contains(err.Error(), "28P01") {
		t.Fatalf("connected with a wrong password, or failed for another reason: %v", err)
	}
}

func TestUnavailableWhenNobodyListens(t *testing.T) {
	t.Parallel()
	port, err := pgtest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.Open(t.Context(), postgres.Cluster{Port: port}.Config("x", "secret-word", "x"), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	err = pool.Ping(t.Context())
	if !postgres.Unavailable(err) {
		t.Errorf("want unavailable, got %v", err)
	}
	if err != nil && strings.Contains(err.Error(), "secret-word") {
		t.Error("the error holds the password")
	}
}
