package server

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"github.com/school-sms/sms/internal/postgres"
)

// positionHeader carries a postgres.Position: the answer to a write says where the write is in the database's log, and a
// read that sends it back is answered from a place where it can be seen.
const positionHeader = "X-SMS-Position"

// positionKey is it as net/http spells it, which saves it the work.
var positionKey = http.CanonicalHeaderKey(positionHeader)

// UseDatabase makes a database part of the service: of its health, its metrics and, when there is a replica, of the way in
// which requests are answered. Call it before the server starts.
func (s *Server) UseDatabase(db *postgres.DB) {
	s.db = db
	s.Metrics.MustRegister(db)
	s.Health.Require("database", CheckError(db.Ping))
	if db.HasReplica() {
		s.Health.Advise("replica", CheckError(db.ReplicaHealth))
	}
}

type answerHeaderKey struct{}

// place lets reads go to the replica, and prepares the answers of writes for their position.
func (s *Server) place() gin.HandlerFunc {
	return func(c *gin.Context) {
		ctx := c.Request.Context()
		var after postgres.Position
		if sent := c.GetHeader(positionKey); sent != "" {
			var err error
			if after, err = postgres.ParsePosition(sent); err != nil {
				ctx = context.WithValue(ctx, unknownKey{}, []Fault{{Field: positionHeader, Code: "wrong-format",
					Detail: "must be as the last answer to a write had it"}})
			}
		}
		if c.Request.Method == http.MethodGet {
			ctx = s.db.WithReads(ctx, after)
		}
		if s.db.HasReplica() {
			ctx = context.WithValue(ctx, answerHeaderKey{}, c.Writer.Header())
		}
		if ctx != c.Request.Context() {
			c.Request = c.Request.WithContext(ctx)
		}
	}
}

// tellsPosition is the key in huma.Operation.Metadata of whether the answers carry a position.
const tellsPosition = "tellsPosition"

// tellPosition adds to an answer where the writes that it tells of can be read. What is committed while an answer streams is not in it.
func (s *Server) tellPosition(ctx context.Context) {
	if header, ok := ctx.Value(answerHeaderKey{}).(http.Header); ok {
		header.Set(positionHeader, s.db.Position(ctx).String())
	}
}

// documentPosition adds the header to every operation: to the request of a read, and to answers that tell of writes.
func documentPosition(_ *huma.OpenAPI, op *huma.Operation) {
	param := func(description string) *huma.Param {
		return &huma.Param{Description: description, Schema: &huma.Schema{Type: huma.TypeString, Pattern: postgres.PositionPattern}}
	}
	if op.Method == http.MethodGet {
		sent := param("What the last answer to a write had in this header: the answer shows that write, even where reads go to a replica.")
		sent.Name, sent.In = positionHeader, "header"
		op.Parameters = append(op.Parameters, sent)
	}
	if tells, _ := op.Metadata[tellsPosition].(bool); !tells {
		return
	}
	for status, response := range op.Responses {
		if !strings.HasPrefix(status, "2") {
			continue
		}
		if response.Headers == nil {
			response.Headers = map[string]*huma.Param{}
		}
		response.Headers[positionHeader] = param("Send it with the reads that must show this write. There is none where no replica is read.")
	}
}
