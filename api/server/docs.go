package server

import (
	_ "embed"
	"net/http"

	"github.com/gin-gonic/gin"
)

// docsPage shows and tries the operations of /openapi.json. It loads nothing from other hosts.
//
//go:embed docs.html
var docsPage []byte

func mountDocs(r gin.IRoutes) {
	r.GET("/docs", func(c *gin.Context) {
		c.Header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "+
			"frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		c.Data(http.StatusOK, "text/html; charset=utf-8", docsPage)
	})
}
