// Command upstream is a service that costs little: it answers the same kilobyte to everybody. What a proxy costs is measured before it.
package main

import (
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/gin-gonic/gin"
)

// answer is a kilobyte of JSON.
var answer = []byte(`{"schoolName":"` + strings.Repeat("a", 1024-len(`{"schoolName":""}`)) + `"}`)

func main() {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.GET("/api/v1/configurations/school-profile", func(c *gin.Context) { c.Data(http.StatusOK, "application/json", answer) })
	engine.GET("/actuator/health/readiness", func(c *gin.Context) { c.Status(http.StatusOK) })
	log.Fatal(http.ListenAndServe(os.Getenv("SERVER_ADDRESS"), engine))
}
