// Command student-service serves student records.
package main

import (
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/student"
	"github.com/school-sms/sms/migrations"
)

func main() {
	server.Run(
		server.Module("student-service"),
		server.Database("student-service", migrations.Student()),
		student.Module,
		server.Serve,
		server.Registered,
	)
}
