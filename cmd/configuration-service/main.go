// Command configuration-service serves school settings and the school profile.
package main

import (
	"github.com/school-sms/sms/api/configuration"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/migrations"
)

func main() {
	server.Run(
		server.Module("configuration-service"),
		server.Database("configuration-service", migrations.Configuration()),
		configuration.Module,
		server.Serve,
		server.Registered,
	)
}
