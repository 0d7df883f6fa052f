package student

import (
	"bufio"
	"context"
	"encoding/csv"
	"fmt"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/server"
)

type exportInput struct{ FilterInput }

// Resolve refuses what no row could hold.
func (in *exportInput) Resolve(huma.Context) []error { return in.check() }

type exportOutput struct{ Body func(huma.Context) }

// exportedAtOnce is how many students are in memory.
const exportedAtOnce = 1000

// export reads all batches in one snapshot: each batch is a short statement, and together they are what was there at one moment.
func (c *CSV) export(ctx context.Context, in *exportInput) (*exportOutput, error) {
	select {
	case c.exports <- struct{}{}:
	default:
		return nil, server.Unavailable("as many exports run as may at once, try again", nil)
	}
	tx, err := c.store.db.Reader(ctx).BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		<-c.exports
		return nil, fmt.Errorf("export students: %w", err)
	}
	today := DateOf(c.now().In(c.school().Zone))
	send := c.attachment("students-"+today.String()+".csv", func(w *bufio.Writer) error {
		return exportTo(ctx, tx, in.filter(today), today, csv.NewWriter(w))
	})
	return &exportOutput{Body: func(hc huma.Context) {
		defer func() {
			_ = tx.Rollback(context.WithoutCancel(ctx))
			<-c.exports
		}()
		send(hc)
	}}, nil
}

func exportTo(ctx context.Context, tx pgx.Tx, f Filter, today Date, out *csv.Writer) error {
	out.UseCRLF = true
	header := []string{"studentId"}
	for _, column := range csvColumns {
		header = append(header, column.name)
	}
	_ = out.Write(append(header, "status", "age", "createdAt", "createdBy", "updatedAt", "updatedBy", "version")) // it keeps its error

	where, args := f.where()
	sql := fmt.Sprintf("select %s from student where %s and student_id > $%d order by student_id limit %d", recordColumns, where, len(args)+1, exportedAtOnce)
	args = append([]any{pgx.QueryExecModeCacheDescribe}, append(args, "")...)
	for {
		rows, _ := tx.Query(ctx, sql, args...)
		found, err := pgx.CollectRows(rows, pgx.RowToStructByName[Record])
		if err != nil {
			return fmt.Errorf("export students: %w", err)
		}
		for _, r := range found {
			_ = out.Write(exported(r, today))
		}
		if out.Flush(); out.Error() != nil || len(found) < exportedAtOnce {
			return out.Error()
		}
		args[len(args)-1] = found[len(found)-1].StudentID
	}
}

// exported is a student as a row of a CSV file.
func exported(r Record, today Date) []string {
	r.AadhaarNumber = mask(r.AadhaarNumber)
	row := []string{r.StudentID}
	for _, column := range csvColumns {
		row = append(row, guardFormula(column.get(&r.Details)))
	}
	return append(row, string(r.Status), strconv.Itoa(r.DateOfBirth.AgeOn(today)), r.CreatedAt.UTC().Format(time.RFC3339Nano), guardFormula(r.CreatedBy),
		r.UpdatedAt.UTC().Format(time.RFC3339Nano), guardFormula(r.UpdatedBy), strconv.FormatInt(r.Version, 10))
}
