package standalone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/postgres"
)

// Platform is a running `sms up`.
type Platform struct {
	options Options
	layout  Layout
	cluster postgres.Cluster
	out     io.Writer
	began   time.Time
	since   time.Time
	fleet   *fleet
	// installed is the digest of each program in BinDir. All run from their copies in the data directory, so that a build
	// beside a running platform changes nothing.
	installed map[string]string
	// doors are the sockets on well-known ports, of services by environment and service, of others by their name. They are held here,
	// so that connections wait in them, rather than be refused, while nobody accepts.
	doors   map[string]*net.TCPListener
	notices *child.Notices
	up      atomic.Bool   // everything has been ready once
	stop    chan struct{} // closed when the platform begins to stop

	mu        sync.Mutex
	processes []*process // in order of start
}

// Run brings the platform up, keeps it up until ctx ends, and takes it down in order.
// Progress and the banner go to out.
func Run(ctx context.Context, options Options, out io.Writer) error {
	p := &Platform{options: options, layout: Layout{Root: options.DataDir}, out: out, began: time.Now(), since: time.Now().UTC(),
		doors: map[string]*net.TCPListener{}, stop: make(chan struct{})}
	if err := p.prepare(); err != nil {
		return err
	}
	unlock, err := p.layout.acquire()
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.claim(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer p.shutdown()
	defer close(p.stop)

	server, socket, err := p.control()
	if err != nil {
		return err
	}
	defer server.Close()
	go server.Serve(socket)
	starting, cancelStart := context.WithTimeout(ctx, p.options.StartTimeout)
	err = p.start(starting)
	cancelStart()
	if ctx.Err() != nil {
		return nil // asked to stop while starting
	}
	if err != nil {
		return err
	}
	p.up.Store(true)
	p.banner()
	<-ctx.Done()
	return nil
}

// prepare checks what can be checked without touching anything that runs.
func (p *Platform) prepare() error {
	install, err := postgres.FindInstallation(p.options.PostgresBin)
	if err != nil {
		return err
	}
	account, err := postgres.ClusterAccount()
	if err != nil {
		return err
	}
	if err := p.options.checkPrograms(); err != nil {
		return err
	}
	if p.layout.services, err = serviceAccount(p.options.Account); err != nil {
		return err
	}
	if err := p.layout.make(); err != nil {
		return err
	}
	p.cluster = postgres.Cluster{Installation: install, Account: account, Dir: p.layout.postgres(),
		Env: []string{supervisedBy + "=" + p.layout.Root}}
	if p.options.Replica {
		p.cluster.Settings = map[string]string{"max_slot_wal_keep_size": maxSlotWAL}
	}
	return errors.Join(p.layout.checkReach(), p.layout.checkDisk(p.options.MinFreeDisk))
}

// claim is done once the data directory is ours alone.
func (p *Platform) claim(ctx context.Context) error {
	if err := p.layout.endLeftovers(ctx, 15*time.Second); err != nil {
		return err
	}
	if err := p.options.checkPorts(); err != nil {
		return err
	}
	p.cluster.Port = p.options.PostgresPort
	desired, err := loadDesired(p.layout.desired())
	if err != nil {
		return err
	}
	p.fleet = &fleet{platform: p, desired: desired}
	ports := map[string]int{serviceKey(Production, registryService): p.options.RegistryPort, "ops-service": p.options.OpsPort, "ops-worker": p.options.WorkerPort}
	for _, environment := range p.options.environments() {
		ports[serviceKey(environment, "api-gateway")] = p.gatewayPort(environment)
	}
	for name, port := range ports {
		if p.doors[name], err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(loopback), Port: port}); err != nil {
			return fmt.Errorf("open the port of %s: %w", name, err)
		}
	}
	return p.hear()
}

// start brings everything up: what others stand on first, the rest at once.
func (p *Platform) start(ctx context.Context) error {
	super, err := p.layout.password(postgres.Superuser)
	if err != nil {
		return err
	}
	signer, err := p.layout.signer()
	if err != nil {
		return err
	}
	if err := p.layout.writeTokens(signer); err != nil {
		return err
	}
	made, err := p.layout.makeBackupKeys()
	if err != nil {
		return err
	}
	if made {
		p.say("made the key of the backups, " + p.layout.backupKey() + ": keep a copy of it elsewhere, without it no backup can be read")
	}
	go p.layout.renewTokens(p.stop, signer, func(err error) { p.say("cannot renew the token files: " + err.Error()) })
	go p.layout.keepLogsSmall(p.stop, func(err error) { p.say("cannot keep the logs small: " + err.Error()) })
	if err := p.cluster.Init(ctx, super); err != nil {
		return err
	}
	primary := p.postgresProcess()
	if err := p.add(ctx, primary); err != nil {
		return err
	}
	if err := p.prepareDatabases(ctx); err != nil {
		return err
	}
	p.say("databases migrated")
	if err := p.startServices(ctx); err != nil {
		return err
	}
	if p.options.Replica {
		p.begin(p.newReplica(primary).process)
	}
	return nil
}

func (p *Platform) startServices(ctx context.Context) error {
	if err := p.install(); err != nil {
		return err
	}
	started := []*process{
		p.temporalProcess(),
		p.httpProcess("ops-service", p.databaseEnv(opsDatabase), p.temporalEnv(), p.workerEnv()),
		p.httpProcess("ops-worker", p.databaseEnv(opsDatabase), p.temporalEnv(), p.workerEnv()),
	}
	errs := make(chan error)
	for _, process := range started {
		go func() { errs <- p.add(ctx, process) }()
	}
	pending := len(started)
	for _, environment := range p.options.environments() {
		for service, replicas := range p.replicas(environment) {
			err := p.fleet.desired.install(environment, service, p.installed[service], replicas)
			if err == nil {
				err = p.fleet.converge(environment, service)
			}
			if err != nil {
				return err
			}
		}
	}
	for _, i := range p.fleet.all() {
		pending++
		go func() { errs <- p.await(ctx, i.process) }()
	}
	var failed error
	for range pending {
		failed = errors.Join(failed, <-errs)
	}
	return failed
}

// install copies the programs of BinDir into the data directory, and removes copies that nothing needs any more.
func (p *Platform) install() error {
	p.installed = map[string]string{}
	for _, program := range programs {
		release, err := p.layout.importRelease(program, filepath.Join(p.options.BinDir, program))
		if err != nil {
			return err
		}
		p.installed[program] = release.Digest
	}
	return p.layout.sweepReleases(func(service, digest string) bool {
		return p.installed[service] == digest || p.fleet.desired.uses(service, digest)
	})
}

// replicas is how many instances of each service an environment starts with.
func (p *Platform) replicas(environment string) map[string]int {
	if environment == Staging {
		return map[string]int{"api-gateway": 1, "student-service": 1, "configuration-service": 1}
	}
	return map[string]int{"api-gateway": p.options.GatewayReplicas, "student-service": p.options.StudentReplicas,
		"configuration-service": p.options.ConfigurationReplicas, registryService: 1}
}

// add starts a process that runs once, and waits until it is ready.
func (p *Platform) add(ctx context.Context, process *process) error {
	p.begin(process)
	return p.await(ctx, process)
}

// begin is add without the wait.
func (p *Platform) begin(process *process) {
	p.mu.Lock()
	p.processes = append(p.processes, process)
	p.mu.Unlock()
	process.start()
}

func (p *Platform) await(ctx context.Context, process *process) error {
	if err := process.waitReady(ctx, func(why string) { p.say(process.name + " is started again: " + why) }); err != nil {
		return err
	}
	p.say(process.name + " ready")
	return nil
}

func (p *Platform) fixedProcesses() []*process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*process(nil), p.processes...)
}

// shutdown stops in the order in which work flows: the doors first, what they lead to, then what that stands on.
func (p *Platform) shutdown() {
	p.say("stopping")
	byName := map[string]*process{}
	for _, process := range p.fixedProcesses() {
		byName[process.name] = process
	}
	for _, stage := range [][]string{{"api-gateway"}, {"ops-service", "ops-worker", "student-service", "configuration-service"},
		{registryService, "temporal-server", replicaProcess}, {"postgres"}} {
		stopping := p.fleet.close(stage)
		for _, name := range stage {
			if process := byName[name]; process != nil {
				stopping = append(stopping, process)
			}
		}
		for _, process := range stopping {
			process.askToHurry()
		}
		for _, process := range stopping {
			<-process.done
		}
	}
	for _, door := range p.doors {
		door.Close()
	}
	p.notices.Close()
	p.say("stopped")
}

func (p *Platform) say(what string) {
	fmt.Fprintf(p.out, "%6.1fs  %s\n", time.Since(p.began).Seconds(), what)
}

func (p *Platform) urls() map[string]string {
	urls := map[string]string{
		"gateway":     p.gatewayURL(Production),
		"docs":        p.gatewayURL(Production) + "/docs",
		"temporal UI": "http://" + address(p.options.TemporalUIPort),
		"registry":    "http://" + address(p.options.RegistryPort) + "/eureka/apps",
	}
	if p.options.Staging {
		urls["staging gateway"] = p.gatewayURL(Staging)
	}
	return urls
}

func (p *Platform) banner() {
	urls := p.urls()
	fmt.Fprintf(p.out, "\nThe School Management System is up: all healthy after %.1f s.\n\n", time.Since(p.began).Seconds())
	for _, line := range [][2]string{
		{"Gateway", urls["gateway"]}, {"API documentation", urls["docs"]}, {"Staging gateway", urls["staging gateway"]},
		{"Temporal web UI", urls["temporal UI"]}, {"Data directory", p.layout.Root}, {"Admin token", p.layout.AdminToken()},
		{"Key of the backups", p.layout.BackupKeys(p.options.Services).Identities + " (keep a copy elsewhere)"},
	} {
		if line[1] != "" {
			fmt.Fprintf(p.out, "  %-18s %s\n", line[0], line[1])
		}
	}
	fmt.Fprintf(p.out, "\nCtrl-C stops everything.\n")
}
