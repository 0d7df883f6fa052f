package student

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// A database that its owner, no superuser, has migrated is restored into an empty one by the same, extension, functions, indexes
// and the key of cursors included.
func TestSearchIsRestored(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	cluster, superuser := pgtest.Cluster(t)
	name, password := "restored_"+strings.ToLower(rand.Text()[:8]), rand.Text()
	run := func(ctx context.Context, statements ...string) {
		t.Helper()
		conn, err := cluster.Connect(ctx, superuser, "postgres")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		for _, statement := range statements {
			if _, err := conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(ctx, fmt.Sprintf("create role %s login password '%s'", name, password), fmt.Sprintf("create database %s_a owner %[1]s", name),
		fmt.Sprintf("create database %s_b owner %[1]s template template0", name))
	t.Cleanup(func() {
		run(context.Background(), fmt.Sprintf("drop database %s_a with (force)", name), fmt.Sprintf("drop database %s_b with (force)", name), "drop role "+name)
	})
	config := func(database string) postgres.Config { return cluster.Config(name, password, name+database) }
	if _, err := postgres.Migrate(ctx, config("_a"), migrations.Student()); err != nil {
		t.Fatal(err)
	}
	store := func(database string) *Store {
		pool, err := postgres.Open(ctx, config(database), "restore-test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return NewStore(postgres.NewDB(pool))
	}
	before, after := store("_a"), store("_b")
	asha := Details{FirstName: "Élodie", LastName: "Patil", GuardianName: "Ravi Patil", MotherName: "Meera Patil", Mobile: "9876543210", DateOfBirth: Date{2016, 6, 30}}
	if _, err := before.Create(ctx, before.db, "STU-2026-00001", asha, false, Author{User: "clerk"}); err != nil {
		t.Fatal(err)
	}
	cursor, err := before.sealCursor(ctx, "search", []string{"position"})
	if err != nil {
		t.Fatal(err)
	}

	tool := func(in []byte, program string, args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(ctx, filepath.Join(cluster.Bin, program), args...)
		cmd.Env = []string{"PGPASSWORD=" + password}
		var out, words bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &words
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v: %s", program, err, words.String())
		}
		return out.Bytes()
	}
	dump := tool(nil, "pg_dump", "--format=custom", "--dbname="+config("_a").URL)
	tool(dump, "pg_restore", "--exit-on-error", "--no-owner", "--no-acl", "--dbname="+config("_b").URL)

	found, total, err := after.Search(ctx, Filter{Text: "patl elodie"}, Order{byRelevance, true}, 0, 20)
	if err != nil || total != 1 || len(found) != 1 || found[0].Details != asha {
		t.Errorf("the restored database finds %d of %d: %v", len(found), total, err)
	}
	if position, err := after.openCursor(ctx, "search", cursor); err != nil || len(position) != 1 {
		t.Errorf("the restored database does not know a cursor: %v", err)
	}
}
