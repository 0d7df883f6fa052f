package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/iancoleman/strcase"
	"github.com/jmoiron/sqlx"
	namespacepb "go.temporal.io/api/namespace/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/postgresql"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/postgresql/driver"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	clusterName = "active"
	metricsPath = "/actuator/prometheus"

	// idleConnTime is how long an unused database connection stays open.
	idleConnTime = 2 * time.Minute
	// namespaceTimeout bounds the registration of the namespace, which needs the services that have just started.
	namespaceTimeout = 30 * time.Second
	// requestTimeout bounds each request of this process to its own listeners.
	requestTimeout = 5 * time.Second
	// stopTimeout is what the Temporal services get to stop; they usually need about a second.
	stopTimeout = 9 * time.Second
)

// server is the four running Temporal services and a connection to their frontend.
type server struct {
	services temporal.Server
	conn     *grpc.ClientConn
}

// startServer starts the services and returns when they listen. The databases must be prepared.
func startServer(cfg Config, frontend address, logger log.Logger) (*server, error) {
	services, err := serviceAddresses(frontend)
	if err != nil {
		return nil, err
	}
	hosts := make(map[primitives.ServiceName]static.Hosts, len(services))
	for name, address := range services {
		hosts[name] = static.SingleLocalHost(address.dial)
	}
	temporalServer, err := temporal.NewServer(
		temporal.WithConfig(serverConfig(cfg, services)),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts),
		temporal.WithLogger(logger),
		temporal.WithDynamicConfigClient(dynamicConfig()),
	)
	if err != nil {
		return nil, fmt.Errorf("configure Temporal: %w", err)
	}
	conn, err := grpc.NewClient("passthrough:///"+frontend.dial,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return nil, fmt.Errorf("connect to the frontend: %w", err)
	}
	if err := temporalServer.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start Temporal: %w", err), conn.Close())
	}
	return &server{temporalServer, conn}, nil
}

// serviceAddresses gives the services behind the frontend free loopback ports, so that several installations run side
// by side and nobody outside the machine reaches them.
func serviceAddresses(frontend address) (map[primitives.ServiceName]address, error) {
	services := map[primitives.ServiceName]address{primitives.FrontendService: frontend}
	for _, name := range []primitives.ServiceName{
		primitives.HistoryService, primitives.MatchingService, primitives.WorkerService,
	} {
		picked, err := reserveLoopback()
		if err != nil {
			return nil, err
		}
		services[name] = picked
	}
	return services, nil
}

func serverConfig(cfg Config, services map[primitives.ServiceName]address) *config.Config {
	frontend := services[primitives.FrontendService]
	conf := &config.Config{
		Services: make(map[string]config.Service, len(services)),
		Persistence: config.Persistence{
			DefaultStore:     "default",
			VisibilityStore:  "visibility",
			NumHistoryShards: cfg.HistoryShards,
			DataStores: map[string]config.DataStore{
				"default":    dataStore(cfg, cfg.database(), cfg.DatabaseMaxConns),
				"visibility": dataStore(cfg, cfg.VisibilityDatabase, cfg.VisibilityMaxConns),
			},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{
				clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: frontend.dial},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		PublicClient:        config.PublicClient{HostPort: frontend.dial},
	}
	for name, address := range services {
		conf.Services[string(name)] = config.Service{RPC: config.RPC{GRPCPort: address.port, BindOnIP: address.bind}}
	}
	conf.Global.Membership.MaxJoinDuration = 30 * time.Second
	if cfg.HealthAddress != "" {
		conf.Global.Metrics = &metrics.Config{Prometheus: &metrics.PrometheusConfig{HandlerPath: metricsPath}}
	}
	const disabled = "disabled"
	conf.Archival.History.State = disabled
	conf.Archival.Visibility.State = disabled
	conf.NamespaceDefaults.Archival.History.State = disabled
	conf.NamespaceDefaults.Archival.Visibility.State = disabled
	return conf
}

// dataStore describes one database. Each of the four services opens a pool of its own, hence the division. Temporal gets
// a function that connects instead of a password: its configuration can then be logged, and a changed password is read.
func dataStore(cfg Config, database string, maxConns int) config.DataStore {
	poolSize := maxConns / len(temporal.DefaultServices)
	return config.DataStore{SQL: &config.SQL{
		PluginName:   postgresql.PluginNamePGX,
		DatabaseName: database,
		Connect: func(*config.SQL) (*sqlx.DB, error) {
			dsn := func() (string, error) { return cfg.dsn(database) }
			db, err := new(driver.PGXDriver).CreateRefreshableConnection(dsn)
			if err != nil {
				return nil, err
			}
			db.SetMaxOpenConns(poolSize)
			db.SetMaxIdleConns(poolSize)
			db.SetConnMaxIdleTime(idleConnTime)
			db.MapperFunc(strcase.ToSnake) // Temporal's queries count on it
			return db, nil
		},
	}}
}

// dynamicConfig fits a server made for clusters to one machine, and keeps it from talking to the outside. Everything that
// workflows can use is left at its default.
func dynamicConfig() dynamicconfig.StaticClient {
	// Each of these pools of goroutines has 512 by default; the database connections are the limit long before.
	const taskWorkers = 32
	return dynamicconfig.StaticClient{
		dynamicconfig.EnableServerVersionCheck.Key(): false,

		// One process gains nothing from spreading a task queue over partitions, which a poll may miss.
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,

		// The workflows kept in memory; the default is 128,000.
		dynamicconfig.HistoryCacheHostLevelMaxSize.Key(): 2048,

		dynamicconfig.TransferProcessorSchedulerWorkerCount.Key():               taskWorkers,
		dynamicconfig.TimerProcessorSchedulerWorkerCount.Key():                  taskWorkers,
		dynamicconfig.VisibilityProcessorSchedulerWorkerCount.Key():             taskWorkers,
		dynamicconfig.MemoryTimerProcessorSchedulerWorkerCount.Key():            taskWorkers,
		dynamicconfig.ReplicationProcessorSchedulerWorkerCount.Key():            1,
		dynamicconfig.ReplicationLowPriorityProcessorSchedulerWorkerCount.Key(): 1,

		// They look for what crashes of a cluster's parts leave behind, by going through all tables.
		dynamicconfig.TaskQueueScannerEnabled.Key(): false,
		dynamicconfig.HistoryScannerEnabled.Key():   false,

		dynamicconfig.WorkerParentCloseMaxConcurrentActivityTaskPollers.Key(): 2,
		dynamicconfig.WorkerParentCloseMaxConcurrentWorkflowTaskPollers.Key(): 2,
	}
}

// ensureNamespace registers the namespace, or gives it the retention if it has another. It tries again while the services
// are still getting to know each other.
func (s *server) ensureNamespace(ctx context.Context, name string, retention time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, namespaceTimeout)
	defer cancel()
	for {
		err := s.tryEnsureNamespace(ctx, name, retention)
		if err == nil || status.Code(err) == codes.InvalidArgument {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("register namespace %q: %w", name, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *server) tryEnsureNamespace(ctx context.Context, name string, retention time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	frontend := workflowservice.NewWorkflowServiceClient(s.conn)
	// Asking whether the namespace exists would come first, if the services did not remember for a second that it does not.
	_, err := frontend.RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace:                        name,
		Description:                      "Workflows of the School Management System",
		WorkflowExecutionRetentionPeriod: durationpb.New(retention),
	})
	if status.Code(err) == codes.AlreadyExists {
		err = s.ensureRetention(ctx, name, retention)
	}
	if err != nil {
		return err
	}
	// This is answered once both the frontend and the services behind it know the namespace.
	_, err = frontend.DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{
		Namespace: name,
		TaskQueue: &taskqueuepb.TaskQueue{Name: "readiness"},
	})
	return err
}

func (s *server) ensureRetention(ctx context.Context, name string, retention time.Duration) error {
	frontend := workflowservice.NewWorkflowServiceClient(s.conn)
	known, err := frontend.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: name})
	if err != nil || known.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration() == retention {
		return err
	}
	_, err = frontend.UpdateNamespace(ctx, &workflowservice.UpdateNamespaceRequest{
		Namespace: name,
		Config:    &namespacepb.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(retention)},
	})
	return err
}

// components returns a check of what a caller needs: a frontend that serves, and a database behind it that answers.
func (s *server) components(namespace string) func(context.Context) map[string]component {
	frontend := healthpb.NewHealthClient(s.conn)
	workflows := workflowservice.NewWorkflowServiceClient(s.conn)
	return func(ctx context.Context) map[string]component {
		serving, err := frontend.Check(ctx, &healthpb.HealthCheckRequest{
			Service: workflowservice.WorkflowService_ServiceDesc.ServiceName,
		})
		if err == nil && serving.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			err = fmt.Errorf("frontend is %s", serving.GetStatus())
		}
		components := map[string]component{"frontend": componentOf(err)}
		// The frontend reads namespaces from the database, not from its cache, to describe them.
		_, err = workflows.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
		components["database"] = componentOf(err)
		return components
	}
}

func componentOf(err error) component {
	if err != nil {
		return component{statusDown, status.Convert(err).Message()}
	}
	return component{Status: statusUp}
}

// stop ends the services. It gives up on them after stopTimeout, which loses nothing: their state is in the database.
func (s *server) stop() error {
	stopped := make(chan error, 1)
	go func() { stopped <- errors.Join(s.conn.Close(), s.services.Stop()) }()
	select {
	case err := <-stopped:
		return err
	case <-time.After(stopTimeout):
		return fmt.Errorf("the Temporal services did not stop within %s", stopTimeout)
	}
}
