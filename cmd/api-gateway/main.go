// Command api-gateway is the single entry point of one environment.
package main

import (
	"github.com/school-sms/sms/api/gateway"
	"github.com/school-sms/sms/api/server"
)

func main() {
	server.Run(server.Module("api-gateway"), gateway.Module, server.Serve, server.Registered)
}
