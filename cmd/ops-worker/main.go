// Command ops-worker runs the platform's operations: the workflows and their activities.
package main

import (
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/temporalclient"
	"github.com/school-sms/sms/migrations"
	"github.com/school-sms/sms/workers"
)

func main() {
	server.Run(
		server.Module("ops-worker"),
		server.Database("ops-worker", migrations.Ops()),
		temporalclient.Module,
		workers.Module,
		server.Serve,
	)
}
