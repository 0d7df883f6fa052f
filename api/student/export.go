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

// export reads all batches in one snapshot: each is a short statement, and together they are what was there at one moment.
func (c *CSV) export(ctx context.Context, in *exportInput) (*exportOutput, error) {
	select {
	case c.exports <- struct{}{}:
	default:
		return nil, server.Unavailable("as many exports run as may at once, try again", nil)
	}
	tx, err := c.store.db.Reader(ctx).BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	end := func() {
		if tx != nil {
			_ = tx.Rollback(context.WithoutCancel(ctx))
		}
		<-c.exports
	}
	today := DateOf(c.now().In(c.school().Zone))
	batch := exportBatches(ctx, tx, in.filter(today))
	var first []Record
	if err == nil {
		first, err = batch("")
	}
	if err != nil {
		end()
		return nil, fmt.Errorf("export students: %w", err)
	}
	send := c.attachment("students-"+today.String()+".csv", func(w *bufio.Writer) error {
		return exportTo(csv.NewWriter(w), today, first, batch)
	})
	return &exportOutput{Body: func(hc huma.Context) {
		defer end()
		send(hc)
	}}, nil
}

// exportBatches reads students in the order of their ids, those that come after one.
func exportBatches(ctx context.Context, tx pgx.Tx, f Filter) func(after string) ([]Record, error) {
	from, args := f.from(Order{})
	sql := fmt.Sprintf("select %s%s and student_id > $%d order by student_id limit %d", recordColumns, from, len(args)+1, exportedAtOnce)
	args = append([]any{pgx.QueryExecModeCacheDescribe}, args...)
	return func(after string) ([]Record, error) {
		rows, _ := tx.Query(ctx, sql, append(args, after)...)
		return pgx.CollectRows(rows, pgx.RowToStructByName[Record])
	}
}

func exportTo(out *csv.Writer, today Date, found []Record, batch func(string) ([]Record, error)) error {
	out.UseCRLF = true
	header := []string{"studentId"}
	for _, column := range csvColumns {
		header = append(header, column.name)
	}
	_ = out.Write(append(header, "status", "age", "createdAt", "createdBy", "updatedAt", "updatedBy", "version")) // it keeps its error
	for {
		for _, r := range found {
			_ = out.Write(exported(r, today))
		}
		if out.Flush(); out.Error() != nil || len(found) < exportedAtOnce {
			return out.Error()
		}
		var err error
		if found, err = batch(found[len(found)-1].StudentID); err != nil {
			return fmt.Errorf("export students: %w", err)
		}
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
