package gateway

import (
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/rs/cors"
)

// newCORS lets the pages of the given origins call (the Fetch standard). Without any it is nil: then no page may.
func newCORS(cfg DoorConfig) *cors.Cors {
	if len(cfg.CORSOrigins) == 0 { // which would mean all of them to the library
		return nil
	}
	return cors.New(cors.Options{
		AllowedOrigins: cfg.CORSOrigins,
		AllowedMethods: methods,
		AllowedHeaders: []string{"Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key", "X-Request-ID",
			"X-SMS-Position", "traceparent"},
		ExposedHeaders: []string{"ETag", "Link", "Location", "Retry-After", "RateLimit", "RateLimit-Policy", "WWW-Authenticate", "Content-Disposition",
			"X-Request-ID", "X-SMS-Position", "X-SMS-Release"},
		MaxAge: int(cfg.CORSMaxAge.Seconds()),
		// Tokens are sent by the page itself: no cookie is ever asked for.
		AllowCredentials: false,
	})
}

// crossOrigin says to browsers what a page may do, and reports whether that was all that was asked for.
func crossOrigin(rules *cors.Cors, c *gin.Context) (answered bool) {
	preflight := c.Request.Method == http.MethodOptions && len(c.Request.Header["Access-Control-Request-Method"]) > 0
	rules.HandlerFunc(c.Writer, c.Request)
	if preflight {
		c.Abort()
		c.Writer.WriteHeaderNow()
	}
	return preflight
}
