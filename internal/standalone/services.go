package standalone

import (
	"context"
	"net"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/school-sms/sms/internal/postgres"
)

// temporalNamespace is the one that all operations run in.
const temporalNamespace = "sms"

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

func (p *Platform) gatewayPort(environment string) int {
	if environment == Staging {
		return p.options.StagingGatewayPort
	}
	return p.options.GatewayPort
}

func (p *Platform) gatewayURL(environment string) string {
	return "http://" + address(p.gatewayPort(environment))
}

// httpEnv is what every HTTP process of ours needs.
func (p *Platform) httpEnv(environment string) []string {
	return append(append(p.childEnv(), p.options.Services...), "SMS_ENVIRONMENT="+environment, "IDENTITY_PUBLIC_KEY_FILE="+p.layout.publicKey(),
		"DISCOVERY_URL=http://"+address(p.options.RegistryPort)+"/eureka")
}

func (p *Platform) databaseEnv(db database) []string {
	return []string{"DATABASE_URL=" + p.cluster.Config(db.role, "", db.name).URL, "DATABASE_PASSWORD_FILE=" + p.layout.passwordFile(db.role)}
}

// serviceEnv is the environment of a service that rollouts act on.
func (p *Platform) serviceEnv(environment, service string) []string {
	env := p.httpEnv(environment)
	if db, ok := serviceDatabase(environment, service); ok {
		env = append(append(env, p.databaseEnv(db)...), "DATABASE_MIGRATE=false") // a rollout does, or waits with it
		if service != registryService {
			env = append(env, p.replicaEnv(db)...)
		}
	}
	if service == "student-service" {
		env = append(env, "SCHOOL_SETTINGS_TOKEN_FILE="+p.layout.studentToken())
	}
	return env
}

func (p *Platform) temporalEnv() []string {
	return []string{"TEMPORAL_ADDRESS=" + address(p.options.TemporalPort), "TEMPORAL_NAMESPACE=" + temporalNamespace}
}

func (p *Platform) workerEnv() []string {
	gateways, proveIn := Production+"="+p.gatewayURL(Production), ""
	if p.options.Staging {
		gateways += "," + Staging + "=" + p.gatewayURL(Staging)
		proveIn = Staging
	}
	keys := p.layout.BackupKeys(p.options.Services)
	return []string{
		"BACKUP_RECIPIENTS_FILE=" + keys.Recipients, "BACKUP_IDENTITIES_FILE=" + keys.Identities, "BACKUP_ENCRYPTION=" + keys.Encryption,
		"BACKUP_DATABASES=" + p.backupDatabases(), "BACKUP_DIR=" + p.layout.backups(), "PGPASSFILE=" + p.layout.backupPasswords(),
		"POSTGRES_BIN=" + p.cluster.Bin, "SMOKE_GATEWAYS=" + gateways, "SMOKE_TOKEN_FILE=" + p.layout.workerToken(), "DISCOVERY_TOKEN_FILE=" + p.layout.workerToken(),
		"TARGET_SOCKET=" + p.layout.Socket(), "ROLLOUT_PROVE_IN=" + proveIn, "SCHEDULE_TIMEZONE=" + p.options.TimeZone,
	}
}

// postgresProcess is the private PostgreSQL server.
func (p *Platform) postgresProcess() *process {
	const name = "postgres"
	return newProcess(spec{
		name: name, stopSignal: syscall.SIGINT, stopTimeout: p.options.StopTimeout, logFile: p.layout.log(name),
		command: func() (*exec.Cmd, func(), error) {
			return p.cluster.Command(), func() {}, nil
		},
		probe: func(ctx context.Context) error {
			super, err := p.layout.password(postgres.Superuser)
			if err != nil {
				return err
			}
			conn, err := p.cluster.Connect(ctx, super, "postgres")
			if err != nil {
				return err
			}
			return conn.Close(ctx)
		},
	})
}

// temporalProcess is the embedded Temporal server with its web UI.
func (p *Platform) temporalProcess() *process {
	const name = "temporal-server"
	var health int
	return newProcess(spec{
		name: name, stopSignal: syscall.SIGTERM, stopTimeout: p.options.StopTimeout, logFile: p.layout.log(name),
		command: func() (*exec.Cmd, func(), error) {
			l, err := p.options.listenPreferring(0)
			if err != nil {
				return nil, nil, err
			}
			health = l.Addr().(*net.TCPAddr).Port
			l.Close()
			cmd := p.program(name, p.installed[name])
			cmd.Env = append(p.childEnv(), p.temporalEnv()...)
			cmd.Env = append(cmd.Env, "TEMPORAL_DATABASE_URL="+p.cluster.Config(temporalDatabase.role, "", temporalDatabase.name).URL,
				"TEMPORAL_DATABASE_PASSWORD_FILE="+p.layout.passwordFile(temporalDatabase.role), "TEMPORAL_DATABASE_CREATE=false",
				"TEMPORAL_VISIBILITY_DATABASE="+visibilityDatabase.name, "TEMPORAL_UI_ADDRESS="+address(p.options.TemporalUIPort),
				"TEMPORAL_HEALTH_ADDRESS="+address(health), "LOG_LEVEL=warn")
			return cmd, func() {}, nil
		},
		probe: func(ctx context.Context) error { return probeReadiness(ctx, health) },
	})
}

// httpProcess is a process of ours that runs once, behind a door of its own.
func (p *Platform) httpProcess(name string, env ...[]string) *process {
	return p.httpChild(name, name, new(atomic.Int32), func() (*exec.Cmd, *net.TCPListener, error) {
		listener, err := p.options.listenPreferring(0)
		cmd := p.program(name, p.installed[name])
		cmd.Env = p.httpEnv(Production)
		for _, more := range env {
			cmd.Env = append(cmd.Env, more...)
		}
		return cmd, listener, err
	}, p.doors[name])
}
