// Command ops-service starts the platform's operations and says how they stand.
package main

import (
	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/temporalclient"
	"github.com/school-sms/sms/migrations"
)

func main() {
	server.Run(
		server.Module("ops-service"),
		server.Database("ops-service", migrations.Ops()),
		temporalclient.Module,
		ops.Module,
		server.Serve,
		server.Registered,
	)
}
