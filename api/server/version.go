package server

// Set by the linker: -X github.com/school-sms/sms/api/server.Version=… .Commit=…
var (
	Version = "dev"
	Commit  = "unknown"
)
