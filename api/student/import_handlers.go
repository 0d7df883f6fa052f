package student

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
)

const (
	imports     = collection + "/imports"
	csvType     = "text/csv"
	csvUTF8Type = csvType + "; charset=utf-8"
)

func importPath(importID string) string { return imports + "/" + importID }

// Mount adds the operations on CSV files to a server.
func (c *CSV) Mount(srv *server.Server) {
	clerks := []identity.Role{identity.Clerk}
	schemas := srv.API.OpenAPI().Components.Schemas
	answer := func(description, mediaType string, schema *huma.Schema) *huma.Response {
		return &huma.Response{Description: description, Content: map[string]*huma.MediaType{mediaType: {Schema: schema}}}
	}
	report := schemas.Schema(reflect.TypeFor[ImportReport](), true, "ImportReport")
	text := &huma.Schema{Type: huma.TypeString}
	file := func(description string) *huma.Response {
		r := answer(description, csvType, text)
		r.Headers = map[string]*huma.Param{"Content-Disposition": {Schema: text}}
		return r
	}
	taken := answer("The file is taken and the import still runs: read it at Location.", "application/json", report)
	taken.Headers = map[string]*huma.Param{"Location": {Schema: text}}

	server.Register(srv, server.Operation{ID: "import-students", Method: http.MethodPost, Path: imports, Status: http.StatusCreated,
		Summary: "Write students from a CSV file", Roles: clerks, Accepts: csvType, MaxBodyBytes: c.cfg.MaxBytes, Errors: []int{http.StatusConflict},
		Responses: map[string]*huma.Response{"201": answer("The import has ended.", "application/json", report), "202": taken}}, c.create)
	server.Register(srv, server.Operation{ID: "list-imports", Method: http.MethodGet, Path: imports,
		Summary: "List the newest imports, running ones too", Roles: clerks}, c.list)
	server.Register(srv, server.Operation{ID: "get-import", Method: http.MethodGet, Path: imports + "/{importId}",
		Summary: "Read where an import stands, and every error of its file", Roles: clerks, Errors: []int{http.StatusNotFound}, TellsPosition: true,
		Responses: map[string]*huma.Response{"200": answer("The import.", "application/json", report)}}, c.get)
	server.Register(srv, server.Operation{ID: "get-rejected-rows", Method: http.MethodGet, Path: imports + "/{importId}/rejected",
		Summary: "Read the bad rows of an import's file as CSV, to mend them and import them again", Roles: clerks,
		Errors:    []int{http.StatusNotFound, http.StatusConflict},
		Responses: map[string]*huma.Response{"200": file("The columns of the file, and a last one with the errors.")}}, c.rejected)
	server.Register(srv, server.Operation{ID: "export-students", Method: http.MethodGet, Path: collection + "/export",
		Summary: "Read all students, or those that a search would find, as CSV", Roles: clerks,
		Responses: map[string]*huma.Response{"200": file("The students as of one moment. A cell that a spreadsheet would take for a formula starts with an apostrophe.")}}, c.export)
}

type importInput struct {
	DryRun   bool   `query:"dryRun" doc:"Answer what the import would do, and write nothing."`
	Mode     string `query:"mode" enum:"all,partial" default:"all" doc:"What to do with the good rows when there are bad ones: all writes nothing, partial writes them."`
	Confirm  bool   `query:"confirm" doc:"Allow the import to deactivate as many students as its file says."`
	FileName string `query:"fileName" maxLength:"200" doc:"What to call the file in the report."`
	Key      string `header:"Idempotency-Key" maxLength:"255" doc:"Names this request. Sent again by you with the same file, while the report is kept, it is answered with the same import; one that FAILED is not remembered."`

	body    io.Reader
	charset charset
	digest  hash.Hash // of the request, for its key
}

// Resolve leaves the body to the handler.
func (in *importInput) Resolve(ctx huma.Context) []error {
	in.body = ctx.BodyReader()
	_, params, _ := mime.ParseMediaType(ctx.Header("Content-Type"))
	switch strings.ToLower(params["charset"]) {
	case "":
	case "utf-8", "utf8", "us-ascii":
		in.charset = utf8Charset
	case "iso-8859-1", "latin1", "windows-1252":
		in.charset = latin1Charset
	default:
		return []error{server.NewProblem(http.StatusUnsupportedMediaType, "validation-error", "charset must be utf-8, iso-8859-1 or windows-1252")}
	}
	in.digest = sha256.New()
	if in.Key != "" {
		fmt.Fprintf(in.digest, "%t %s %t %q %q\n", in.DryRun, in.Mode, in.Confirm, in.FileName, params["charset"])
		in.body = io.TeeReader(in.body, in.digest)
	}
	if in.FileName != storable(in.FileName) {
		return []error{server.Fault{Field: "fileName", Code: "wrong-format", Detail: "must be text"}}
	}
	return nil
}

type importOutput struct {
	Location string `header:"Location"`
	Body     func(huma.Context)
}

type streamOutput struct{ Body func(huma.Context) }

type importsOutput struct{ Body Imports }

// create stages the file while it comes, and waits a while for the import's end.
func (c *CSV) create(ctx context.Context, in *importInput) (*importOutput, error) {
	by := author(ctx)
	if in.Key != "" {
		if importID, err := c.sentBefore(ctx, in, by.User); err != nil {
			return nil, err
		} else if importID != "" {
			return c.answer(ctx, importID)
		}
	}
	reader, header, first, faults, err := openCSV(in.body, in.charset)
	if err != nil {
		return nil, server.UnreadBody(err)
	} else if len(faults) > 0 {
		return nil, server.Invalid(faults...)
	}
	var importID string
	err = c.store.db.QueryRow(ctx, insertImport, pgx.NamedArgs{"dry_run": in.DryRun, "mode": in.Mode, "confirm": in.Confirm,
		"file_name": in.FileName, "header": header.names, "separator": string(reader.comma), "request_id": by.RequestID, "user": by.User,
		"lease": c.cfg.Lease, "key": in.Key}).Scan(&importID)
	if postgres.ViolatedConstraint(err) == "student_import_key" {
		return nil, keyInUse()
	} else if err != nil {
		return nil, fmt.Errorf("begin an import: %w", err)
	}
	if err := c.upload(ctx, importID, in.digest, header, reader, first); err != nil {
		c.abandon(importID)
		return nil, asUpload(err)
	}
	select {
	case <-c.start(importID):
	case <-time.After(c.cfg.Wait):
	case <-ctx.Done():
	}
	return c.answer(ctx, importID)
}

// answer tells whoever has sent a file where its import stands.
func (c *CSV) answer(ctx context.Context, importID string) (*importOutput, error) {
	row, err := readImport(ctx, c.store.db, importID)
	if err != nil {
		return nil, err
	}
	status := http.StatusCreated
	if row.State == Running {
		status = http.StatusAccepted
	}
	return &importOutput{Location: importPath(importID), Body: c.report(ctx, row, status)}, nil
}

// sentBefore returns the import that the caller's key stands for, "" when there is none, after reading that it is the same file.
func (c *CSV) sentBefore(ctx context.Context, in *importInput, user string) (importID string, err error) {
	var digest []byte
	err = c.store.db.QueryRow(ctx, selectSentBefore, user, in.Key).Scan(&importID, &digest)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("look up an Idempotency-Key: %w", err)
	case digest == nil:
		return "", keyInUse()
	}
	if _, err := io.Copy(io.Discard, in.body); err != nil {
		return "", server.UnreadBody(err)
	}
	if !bytes.Equal(digest, in.digest.Sum(nil)) {
		return "", server.KeyReused()
	}
	return importID, nil
}

func keyInUse() error {
	return server.Conflict("a file with this Idempotency-Key is still being sent: wait, then send it again")
}

// upload stages a file and hands it over to be decided.
func (c *CSV) upload(ctx context.Context, importID string, digest hash.Hash, h csvHeader, r *csvReader, first csvRecord) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var at progress
	at.phase.Store(Uploading)
	stage := newStager(c.store.db, importID, h, &at.rows)
	release := c.hold(ctx, importID, &at, func() { cancel(errImportLost) })
	err := stage.run(ctx, r, first)
	release()
	if err == nil {
		tag, failed := c.store.db.Exec(ctx, endUpload, importID, at.rows.Load(), stage.staged, stage.utf8, c.cfg.Lease, digest.Sum(nil))
		if err = failed; err == nil && tag.RowsAffected() == 0 {
			err = errImportLost
		}
	}
	if cause := context.Cause(ctx); cause == errImportLost {
		err = cause
	}
	return err
}

// errImportLost says that the import was ended while its file was coming, because nothing was seen of it for too long.
var errImportLost = server.Unavailable("the import was given up because the database could not be reached: send the file again", nil)

// abandon ends an import whose file has not come to its end.
func (c *CSV) abandon(importID string) {
	ctx, cancel := shortly()
	defer cancel()
	if err := c.fail(ctx, importID, uploadIncomplete); err != nil {
		c.log.Warn("an import is ended when its lease has run out", "import.id", importID, "error", err.Error())
	}
}

func (c *CSV) list(ctx context.Context, _ *struct{}) (*importsOutput, error) {
	rows, err := listImports(ctx, c.store.db)
	if err != nil {
		return nil, err
	}
	out := &importsOutput{Body: Imports{Content: make([]Import, len(rows))}}
	for i, row := range rows {
		out.Body.Content[i] = row.present()
	}
	return out, nil
}

// OneImportInput names an import.
type OneImportInput struct {
	ImportID string `path:"importId" format:"uuid"`
}

func (c *CSV) get(ctx context.Context, in *OneImportInput) (*streamOutput, error) {
	row, err := readImport(ctx, c.store.db, in.ImportID)
	if err != nil {
		return nil, err
	}
	return &streamOutput{Body: c.report(ctx, row, http.StatusOK)}, nil
}

// report writes an ImportReport, its errors as they come from the database.
func (c *CSV) report(ctx context.Context, row importRow, status int) func(huma.Context) {
	return c.stream(status, "application/json", func(w *bufio.Writer) error {
		document, err := json.Marshal(row.present())
		if err != nil {
			return fmt.Errorf("encode an import: %w", err)
		}
		_, _ = w.Write(document[:len(document)-1]) // a bufio.Writer keeps its error for Flush
		_, _ = w.WriteString(`,"errors":[`)
		comma := ""
		err = eachFaultyLine(ctx, c.store.db, readFaults, row.ImportID, -1, func(line faultyLine) error {
			for _, fault := range line.Faults {
				encoded, err := json.Marshal(ImportError{line.Line, fault})
				if err != nil {
					return fmt.Errorf("encode an error: %w", err)
				}
				_, _ = w.WriteString(comma)
				if _, err := w.Write(encoded); err != nil {
					return err
				}
				comma = ","
			}
			return nil
		})
		_, _ = w.WriteString("]}\n")
		return err
	})
}

func (c *CSV) rejected(ctx context.Context, in *OneImportInput) (*streamOutput, error) {
	row, err := readImport(ctx, c.store.db, in.ImportID)
	if err != nil {
		return nil, err
	} else if row.State == Running {
		return nil, server.Conflict("the import still runs")
	}
	return &streamOutput{Body: c.attachment("rejected.csv", func(w *bufio.Writer) error {
		out := csv.NewWriter(w)
		out.Comma, out.UseCRLF = rune(row.Separator[0]), true
		_ = out.Write(append(withoutErrors(row.Header, row.Header), errorsColumn)) // a csv.Writer keeps its error
		err := eachFaultyLine(ctx, c.store.db, readFaultyRows, row.ImportID, 0, func(line faultyLine) error {
			return out.Write(append(line.row(row.Header), line.errors()))
		})
		out.Flush()
		return errors.Join(err, out.Error())
	})}, nil
}

// withoutErrors leaves out the cells of a column that a list of rejected rows has added before.
func withoutErrors(header, cells []string) []string {
	kept := make([]string, 0, len(cells)+1)
	for i, cell := range cells {
		if !strings.EqualFold(header[i], errorsColumn) {
			kept = append(kept, cell)
		}
	}
	return kept
}

// row is the line in the columns of the file. A line that is no row of them stands whole in the first.
func (l faultyLine) row(header []string) []string {
	cells := make([]string, len(header))
	for i := range min(len(l.Cells), len(cells)) {
		cells[i] = guardFormula(l.Cells[i])
	}
	return withoutErrors(header, cells)
}

// errors is what is wrong with the line, in words.
func (l faultyLine) errors() string {
	words := make([]string, len(l.Faults))
	for i, fault := range l.Faults {
		if words[i] = fault.Detail; fault.Column != "" {
			words[i] = fault.Column + ": " + fault.Detail
		}
	}
	return fmt.Sprintf("line %d: %s", l.Line, strings.Join(words, "; "))
}

// attachment streams a CSV file.
func (c *CSV) attachment(name string, write func(*bufio.Writer) error) func(huma.Context) {
	send := c.stream(http.StatusOK, csvUTF8Type, write)
	return func(ctx huma.Context) {
		ctx.SetHeader("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
		send(ctx)
	}
}

// stream answers with what write writes. A failure cuts the connection, so that nobody takes a part for the whole.
func (c *CSV) stream(status int, mediaType string, write func(*bufio.Writer) error) func(huma.Context) {
	return func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", mediaType)
		ctx.SetStatus(status)
		w := bufio.NewWriterSize(&impatientWriter{ctx.BodyWriter(), http.NewResponseController(humagin.Unwrap(ctx).Writer), c.cfg.WriteTimeout}, 32<<10)
		err := write(w)
		if err == nil {
			err = w.Flush()
		}
		if err != nil {
			c.log.Warn("an answer was cut off", "url.path", ctx.URL().Path, "http.request.id", server.RequestID(ctx.Context()), "error", err.Error())
			panic(http.ErrAbortHandler)
		}
	}
}

// impatientWriter gives up on a reader who takes nothing for a while.
type impatientWriter struct {
	io.Writer
	connection *http.ResponseController
	patience   time.Duration
}

func (w *impatientWriter) Write(p []byte) (int, error) {
	if err := w.connection.SetWriteDeadline(time.Now().Add(w.patience)); err == nil {
		defer func() { _ = w.connection.SetWriteDeadline(time.Time{}) }()
	}
	return w.Writer.Write(p)
}
