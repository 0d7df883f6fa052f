package student

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
)

// namedArgs are pgx.NamedArgs that look for the names in a statement once, not each time that it runs.
type namedArgs pgx.NamedArgs

type positional struct {
	sql   string
	names []any
}

var rewritten sync.Map // statement → positional

// RewriteQuery is what pgx asks for.
func (n namedArgs) RewriteQuery(ctx context.Context, conn *pgx.Conn, sql string, _ []any) (string, []any, error) {
	known, there := rewritten.Load(sql)
	if !there {
		names := pgx.StrictNamedArgs{}
		for name := range n {
			names[name] = name
		}
		statement, order, err := names.RewriteQuery(ctx, conn, sql, nil)
		if err != nil {
			return "", nil, fmt.Errorf("name the arguments: %w", err)
		}
		known, _ = rewritten.LoadOrStore(sql, positional{statement, order})
	}
	p := known.(positional)
	args := make([]any, len(p.names))
	for i, name := range p.names {
		args[i] = n[name.(string)]
	}
	return p.sql, args, nil
}
