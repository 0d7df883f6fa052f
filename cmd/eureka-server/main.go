// Command eureka-server is the service registry.
package main

import (
	"github.com/school-sms/sms/api/registry"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/migrations"
)

func main() {
	server.Run(server.Module("eureka-server"), server.Migrated(migrations.Registry()), registry.Module, server.Serve)
}
