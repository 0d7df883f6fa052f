package standalone

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/postgres"
)

const (
	replicaProcess = "postgres-replica"
	// replicaRole may replicate, which is to read everything: no service may know its password.
	replicaRole = "sms_replica"
	replicaSlot = "sms_replica"
	// maxSlotWAL bounds what the primary keeps for a replica that is away. One that has missed more is copied anew.
	maxSlotWAL = "1GB"
	// followWithin is how long a replica may run without following a primary that is ready, before it is copied anew.
	followWithin = 30 * time.Second
	// maxUnproven is how many lives in a row may end without having followed, before the replica is copied anew. The first
	// after a crash may find processes of the one before in its way.
	maxUnproven = 3
	// askPrimary bounds the wait for the primary's word on whether the replica can go on.
	askPrimary = 10 * time.Second
)

// replica is a streaming replica of the private PostgreSQL, in a folder beside it. Nothing else waits for it.
type replica struct {
	platform *Platform
	primary  *process
	cluster  postgres.Cluster
	upstream postgres.Upstream
	process  *process
	patience time.Duration

	mu sync.Mutex
	// unproven counts the lives since one has followed the primary.
	unproven int
	// lost is since when this life does not follow, though the primary is ready.
	lost time.Time
}

// newReplica prepares a replica of the primary; its process is not started.
func (p *Platform) newReplica(primary *process) *replica {
	r := &replica{platform: p, primary: primary, patience: followWithin,
		upstream: postgres.Upstream{Port: p.cluster.Port, Role: replicaRole, PassFile: p.layout.replicaPasswords(), Slot: replicaSlot}}
	r.cluster = p.cluster
	r.cluster.Dir, r.cluster.Port = p.layout.replica(), p.options.PostgresReplicaPort
	r.cluster.Settings = map[string]string{"shared_buffers": "16MB", "wal_retrieve_retry_interval": "1s"}
	r.cluster = r.cluster.Standby(r.upstream)
	r.process = newProcess(spec{
		name: replicaProcess, stopSignal: syscall.SIGINT, stopTimeout: p.options.StopTimeout, logFile: p.layout.log(replicaProcess),
		command: func() (*exec.Cmd, func(), error) {
			ctx, cancel := p.untilStop()
			defer cancel()
			if err := r.makeFit(ctx); err != nil {
				return nil, nil, err
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.unproven, r.lost = r.unproven+1, time.Time{}
			return r.cluster.Command(), func() {}, nil
		},
		probe: r.follows,
	})
	return r
}

// untilStop is a context that ends when the platform begins to stop.
func (p *Platform) untilStop() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-p.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// prepareReplica makes what the primary needs for a replica or, when there is to be none, drops the slot, for which the
// primary would keep its log.
func (p *Platform) prepareReplica(ctx context.Context, conn *pgx.Conn) error {
	if !p.options.Replica {
		return dropSlot(ctx, conn)
	}
	if err := p.ensureRole(ctx, conn, replicaRole, "login replication"); err != nil {
		return err
	}
	password, err := p.layout.password(replicaRole)
	if err != nil {
		return err
	}
	return writeOwned(p.layout.replicaPasswords(), fmt.Sprintf("%s:%d:replication:%s:%s\n", loopback, p.cluster.Port, replicaRole, password),
		p.cluster.UID, p.cluster.GID)
}

func dropSlot(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1 and not active`, replicaSlot)
	if err != nil {
		return fmt.Errorf("drop the slot of the replica: %w", err)
	}
	return nil
}

// makeFit copies the primary unless there is a copy that can follow it.
func (r *replica) makeFit(ctx context.Context) error {
	super, err := r.platform.layout.password(postgres.Superuser)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, askPrimary)
	conn, err := r.platform.cluster.Connect(asking, super, "postgres")
	cancel()
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	unfit, behind, err := r.examine(ctx, conn)
	if unfit == "" || err != nil {
		return err
	}
	r.platform.say(replicaProcess + " is copied from the primary: " + unfit)
	if err := r.retire(behind); err != nil {
		return err
	}
	if err := r.platform.checkRoom(ctx, conn); err != nil {
		return err
	}
	if err := dropSlot(ctx, conn); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, `select pg_create_physical_replication_slot($1, true)`, replicaSlot); err != nil {
		return fmt.Errorf("make the slot of the replica: %w", err)
	}
	err = r.cluster.CopyFrom(ctx, r.upstream)
	if err == nil {
		r.platform.say(replicaProcess + " is copied")
		r.mu.Lock()
		defer r.mu.Unlock()
		r.unproven = 0
	}
	return err
}

// examine says why the copy cannot follow the primary, if so, and whether all that it holds is in the primary, too.
func (r *replica) examine(ctx context.Context, conn *pgx.Conn) (unfit string, behind bool, err error) {
	if _, err := os.Stat(r.cluster.Dir); errors.Is(err, fs.ErrNotExist) {
		return "there is no copy yet", true, nil
	}
	var system, flushed int64
	var slot string
	err = conn.QueryRow(ctx, `
select system_identifier, (pg_current_wal_flush_lsn() - '0/0')::bigint,
    coalesce((select wal_status from pg_replication_slots where slot_name = $1), 'gone')
from pg_control_system()`, replicaSlot).Scan(&system, &flushed, &slot)
	if err != nil {
		return "", false, fmt.Errorf("ask the primary what it has: %w", err)
	}
	control, unreadable := r.cluster.ReadControl(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return "", false, ctx.Err()
	case unreadable != nil:
		return unreadable.Error(), false, nil
	case control.System != uint64(system):
		return "it is of another cluster", false, nil
	case control.Reached > uint64(flushed):
		return "it holds what the primary has not: the primary was restored", false, nil
	case slot == "gone" || slot == "lost":
		return "the primary has not kept what it lacks", true, nil
	case r.unproven >= maxUnproven:
		return "it did not come to follow", true, nil
	}
	return "", true, nil
}

// retire makes room for a new copy. An old one that may hold what the primary has lost is kept, for people to look at.
func (r *replica) retire(behind bool) error {
	if behind {
		return os.RemoveAll(r.cluster.Dir)
	}
	aside := r.cluster.Dir + "." + time.Now().UTC().Format("20060102T150405Z")
	r.platform.say("what " + replicaProcess + " held is kept in " + aside)
	return os.Rename(r.cluster.Dir, aside)
}

// checkRoom refuses a copy that would leave the primary without room to write.
func (p *Platform) checkRoom(ctx context.Context, conn *pgx.Conn) error {
	var size int64
	if err := conn.QueryRow(ctx, `select sum(pg_database_size(oid))::bigint from pg_database`).Scan(&size); err != nil {
		return fmt.Errorf("measure the primary: %w", err)
	}
	free, err := p.layout.FreeDisk()
	if need := uint64(size)>>20 + p.options.MinFreeDisk; err == nil && free < need {
		err = fmt.Errorf("no room for a replica: %d MiB are free, %d are needed", free, need)
	}
	return err
}

// follows is nil while the replica streams from the primary. One that does not for long, though it could, is ended, and its
// next life begins with a new copy.
func (r *replica) follows(ctx context.Context) error {
	err := r.streams(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.unproven, r.lost = 0, time.Time{}
	case r.primary.snapshot().State != Ready:
		r.lost = time.Time{}
	case r.lost.IsZero():
		r.lost = time.Now()
	case time.Since(r.lost) > r.patience:
		r.unproven = maxUnproven
		if pid := r.process.snapshot().PID; pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGQUIT) // what it leaves behind is not used again
		}
	}
	return err
}

func (r *replica) streams(ctx context.Context) error {
	super, err := r.platform.layout.password(postgres.Superuser)
	if err != nil {
		return err
	}
	conn, err := r.cluster.Connect(ctx, super, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var streaming bool
	if err := conn.QueryRow(ctx, `select exists (select from pg_stat_wal_receiver where status = 'streaming')`).Scan(&streaming); err != nil {
		return err
	}
	if !streaming {
		return errors.New("it does not follow the primary")
	}
	return nil
}

// replicaEnv lets a service read its database from the replica.
func (p *Platform) replicaEnv(db database) []string {
	if !p.options.Replica {
		return nil
	}
	replica := p.cluster
	replica.Port = p.options.PostgresReplicaPort
	return []string{"DATABASE_REPLICA_URL=" + replica.Config(db.role, "", db.name).URL}
}
