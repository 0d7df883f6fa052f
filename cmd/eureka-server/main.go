// Command eureka-server is the service registry.
package main

import (
	"github.com/school-sms/sms/api/registry"
	"github.com/school-sms/sms/api/server"
)

func main() { server.Run(server.Module("eureka-server"), registry.Module, server.Serve) }
