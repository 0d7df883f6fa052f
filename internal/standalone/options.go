package standalone

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Options is what `sms up` can be told. Ports are of the loopback interface; 0 picks a free one.
type Options struct {
	// DataDir holds everything that must survive. Default: see DefaultDataDir.
	DataDir string `env:"SMS_DATA_DIR"`
	// BinDir holds the platform's programs. Default: the folder of `sms` itself.
	BinDir string `env:"SMS_BIN_DIR"`
	// PostgresBin is the folder of PostgreSQL's programs. Default: the newest below /usr/lib/postgresql.
	PostgresBin string `env:"SMS_POSTGRES_BIN"`
	// Account is what the services run under when `sms up` runs as root; `make up` makes it. PostgreSQL has its own.
	Account string `env:"SMS_ACCOUNT" envDefault:"sms"`
	// Staging says whether the staging environment runs.
	Staging bool `env:"SMS_STAGING" envDefault:"true"`
	// Replica says whether a streaming replica of the private PostgreSQL runs, which the services read from.
	Replica bool `env:"SMS_REPLICA" envDefault:"false"`
	// LogLevel of every process: debug, info, warn or error.
	LogLevel string `env:"SMS_LOG_LEVEL" envDefault:"info"`
	// TimeZone of the schedules, an IANA name.
	TimeZone string `env:"SMS_TIMEZONE" envDefault:"Asia/Kolkata"`

	GatewayPort         int `env:"SMS_GATEWAY_PORT" envDefault:"8080"`
	StagingGatewayPort  int `env:"SMS_STAGING_GATEWAY_PORT" envDefault:"8090"`
	StudentPort         int `env:"SMS_STUDENT_PORT" envDefault:"8081"`
	ConfigurationPort   int `env:"SMS_CONFIGURATION_PORT" envDefault:"8082"`
	OpsPort             int `env:"SMS_OPS_PORT" envDefault:"8083"`
	WorkerPort          int `env:"SMS_WORKER_PORT" envDefault:"8084"`
	RegistryPort        int `env:"SMS_REGISTRY_PORT" envDefault:"8761"`
	TemporalPort        int `env:"SMS_TEMPORAL_PORT" envDefault:"7233"`
	TemporalUIPort      int `env:"SMS_TEMPORAL_UI_PORT" envDefault:"8233"`
	PostgresPort        int `env:"SMS_POSTGRES_PORT" envDefault:"15432"`
	PostgresReplicaPort int `env:"SMS_POSTGRES_REPLICA_PORT" envDefault:"15433"`

	// Replicas of the production environment.
	GatewayReplicas       int `env:"SMS_GATEWAY_REPLICAS" envDefault:"2"`
	StudentReplicas       int `env:"SMS_STUDENT_REPLICAS" envDefault:"2"`
	ConfigurationReplicas int `env:"SMS_CONFIGURATION_REPLICAS" envDefault:"1"`

	// StartTimeout bounds the wait until everything is healthy.
	StartTimeout time.Duration `env:"SMS_START_TIMEOUT" envDefault:"120s"`
	// StopTimeout bounds the wait for one process to end before it is killed. Above what the services may take to stop: the sum of
	// their SERVER_HANDOVER_TIMEOUT, _DRAIN_IDLE and _SHUTDOWN_TIMEOUT, and some seconds.
	StopTimeout time.Duration `env:"SMS_STOP_TIMEOUT" envDefault:"100s"`
	// MinFreeDisk is the space, in MiB, that must be free in the data directory to start.
	MinFreeDisk uint64 `env:"SMS_MIN_FREE_DISK" envDefault:"512"`

	// Services holds settings of the services themselves, NAME=VALUE, see Passed.
	Services []string
}

// port is one setting among the ports.
type port struct {
	name, setting string
	value         *int
}

func (o *Options) ports() []port {
	ports := []port{
		{"gateway", "SMS_GATEWAY_PORT", &o.GatewayPort},
		{"student-service", "SMS_STUDENT_PORT", &o.StudentPort},
		{"configuration-service", "SMS_CONFIGURATION_PORT", &o.ConfigurationPort},
		{"ops-service", "SMS_OPS_PORT", &o.OpsPort},
		{"ops-worker", "SMS_WORKER_PORT", &o.WorkerPort},
		{registryService, "SMS_REGISTRY_PORT", &o.RegistryPort},
		{"temporal-server", "SMS_TEMPORAL_PORT", &o.TemporalPort},
		{"Temporal web UI", "SMS_TEMPORAL_UI_PORT", &o.TemporalUIPort},
		{"PostgreSQL", "SMS_POSTGRES_PORT", &o.PostgresPort},
	}
	if o.Staging {
		ports = append(ports, port{"staging gateway", "SMS_STAGING_GATEWAY_PORT", &o.StagingGatewayPort})
	}
	if o.Replica {
		ports = append(ports, port{"PostgreSQL replica", "SMS_POSTGRES_REPLICA_PORT", &o.PostgresReplicaPort})
	}
	return ports
}

// reserves reports whether a port is one of the settings.
func (o *Options) reserves(number int) bool {
	return slices.ContainsFunc(o.ports(), func(p port) bool { return *p.value == number })
}

// NamedPort is a port and what it is for.
type NamedPort struct {
	Name string
	Port int
}

// Ports lists the ports that `sms up` will listen on.
func (o Options) Ports() []NamedPort {
	var named []NamedPort
	for _, p := range o.ports() {
		named = append(named, NamedPort{p.name, *p.value})
	}
	return named
}

// Check names every fault.
func (o Options) Check() error {
	var faults []error
	used := map[int]string{}
	for _, p := range o.ports() {
		switch other, taken := used[*p.value]; {
		case *p.value < 0 || *p.value > 65535:
			faults = append(faults, fmt.Errorf("%s: %d is no port (0 to 65535)", p.setting, *p.value))
		case taken && *p.value != 0:
			faults = append(faults, fmt.Errorf("%s: port %d is also %s", p.setting, *p.value, other))
		}
		used[*p.value] = p.setting
	}
	for setting, n := range map[string]int{"SMS_GATEWAY_REPLICAS": o.GatewayReplicas, "SMS_STUDENT_REPLICAS": o.StudentReplicas,
		"SMS_CONFIGURATION_REPLICAS": o.ConfigurationReplicas} {
		if n < 1 || n > 16 {
			faults = append(faults, fmt.Errorf("%s: %d is not between 1 and 16", setting, n))
		}
	}
	if _, err := time.LoadLocation(o.TimeZone); err != nil {
		faults = append(faults, fmt.Errorf("SMS_TIMEZONE: %q is no IANA time zone", o.TimeZone))
	}
	return errors.Join(faults...)
}
