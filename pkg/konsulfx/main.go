package konsulfx

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"go.uber.org/dig"
	"go.uber.org/fx"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/ops"
)

// Exit codes of a service binary.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const probeTimeout = 5 * time.Second

// version is stamped by the build (-ldflags -X).
var version string

// Version is the program's version, as the build stamped it.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// Command is something else a service binary does with its configuration: `NAME WORD [flags]`.
type Command[C any] struct {
	// Word is the first argument that asks for it.
	Word string
	// Help is a line of usage: what it does.
	Help string
	// Flags adds flags of its own; nil: it has none.
	Flags func(*flag.FlagSet)
	// Run does it. A signal ends ctx.
	Run func(ctx context.Context, cfg C, out io.Writer) error
}

// Main runs a service binary: it reads flags, loads configuration, runs the module until a signal
// or a failure, and exits. SIGHUP reloads what can be changed while it runs: see Reloader. `NAME
// health` asks a running process with the same configuration whether it is ready.
func Main[C any, P interface {
	*C
	config.Loadable
}](name string, defaults func() C, module func(C) fx.Option, commands ...Command[C]) {
	SetGC()
	os.Exit(run[C, P](name, os.Args[1:], defaults, module, os.Stdout, os.Stderr, commands...))
}

type invocation[C any] struct {
	options     config.Options
	health      bool
	command     *Command[C]
	checkConfig bool
	version     bool
}

func parse[C any](name string, args []string, out io.Writer, commands []Command[C]) (invocation[C], error) {
	var inv invocation[C]
	if len(args) > 0 && args[0] == "health" {
		inv.health, args = true, args[1:]
	}
	for i, c := range commands {
		if len(args) > 0 && args[0] == c.Word {
			inv.command, args = &commands[i], args[1:]
		}
	}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Func("config", "read this YAML `file` (repeatable, later ones win)", func(path string) error {
		inv.options.Files = append(inv.options.Files, path)
		return nil
	})
	flags.Func("set", "set one key, `key=value` such as server.datacenter=us-east (repeatable)", func(pair string) error {
		inv.options.Sets = append(inv.options.Sets, pair)
		return nil
	})
	flags.BoolVar(&inv.checkConfig, "check-config", false, "load and validate the configuration, then exit")
	flags.BoolVar(&inv.version, "version", false, "print the version, then exit")
	if inv.command != nil && inv.command.Flags != nil {
		inv.command.Flags(flags)
	}
	flags.Usage = func() {
		fmt.Fprintf(out, "Usage: %s [WORD] [flags]\n\nWithout a word it runs the service.\n  %-9s ask a running process with the same configuration whether it is ready\n", name, "health")
		for _, c := range commands {
			fmt.Fprintf(out, "  %-9s %s\n", c.Word, c.Help)
		}
		fmt.Fprintf(out, "\nExample:\n  %s --config konsul.yaml\n  %s health --config konsul.yaml\n\nFlags:\n", name, name)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return inv, err
	}
	if flags.NArg() > 0 {
		return inv, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return inv, nil
}

func run[C any, P interface {
	*C
	config.Loadable
}](name string, args []string, defaults func() C, module func(C) fx.Option, stdout, stderr io.Writer, commands ...Command[C]) int {
	inv, err := parse(name, args, stderr, commands)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		complain(stderr, name, err)
		return exitUsage
	case inv.version:
		fmt.Fprintln(stdout, name, Version())
		return exitOK
	}
	cfg := defaults()
	if err := config.LoadService(P(&cfg), inv.options); err != nil {
		complain(stderr, name, err)
		return exitUsage
	}
	settings := P(&cfg).Settings()
	switch {
	case inv.checkConfig:
		// What a service can check beyond its settings, such as the files they name.
		if c, ok := any(&cfg).(interface{ CheckConfig() error }); ok {
			if err := c.CheckConfig(); err != nil {
				complain(stderr, name, err)
				return exitUsage
			}
		}
		if c, ok := any(&cfg).(interface{ ConfigNotes() []string }); ok {
			for _, note := range c.ConfigNotes() {
				fmt.Fprintln(stdout, note)
			}
		}
		fmt.Fprintln(stdout, "configuration is valid")
		return exitOK
	case inv.health:
		return probe(name, settings.Server.DataDir, stderr)
	case inv.command != nil:
		ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer cancel()
		if err := inv.command.Run(ctx, cfg, stdout); err != nil {
			complain(stderr, name, err)
			return exitFailed
		}
		return exitOK
	}
	// From here on, so that a hang-up never ends the process: it is seen to once that has started.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	var telemetry *obs.Telemetry
	var services *reloads
	app := fx.New(base(name, *settings, stderr), module(cfg), fx.Populate(&telemetry, &services))
	err = supervise(app, hangups, func(ctx context.Context) {
		reload(ctx, &cfg, func() (any, *config.Base, error) {
			fresh := defaults()
			err := config.LoadService(P(&fresh), inv.options)
			return &fresh, P(&fresh).Settings(), err
		}, telemetry, services)
	})
	if err != nil {
		complain(stderr, name, err)
		return exitFailed
	}
	return exitOK
}

func probe(name, dataDir string, stderr io.Writer) int {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	if err := ops.Probe(ctx, dataDir, name); err != nil {
		complain(stderr, name, err)
		return exitFailed
	}
	return exitOK
}

// supervise runs an app until a signal, or until one of its loops fails, and reloads it at each
// hang-up.
func supervise(app *fx.App, hangups <-chan os.Signal, reload func(context.Context)) error {
	if err := app.Err(); err != nil {
		return dig.RootCause(err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	startCtx, cancelStart := context.WithTimeout(ctx, app.StartTimeout())
	defer cancelStart()
	if err := app.Start(startCtx); err != nil {
		return dig.RootCause(err)
	}
	code, ended := 0, app.Wait()
	for running := true; running; {
		select {
		case <-hangups:
			reload(ctx)
		case <-ctx.Done():
			running = false
		case sig := <-ended:
			code, running = sig.ExitCode, false
		}
	}
	// A second signal kills at once, as everywhere.
	cancel()
	stopCtx, cancelStop := context.WithTimeout(context.Background(), app.StopTimeout())
	defer cancelStop()
	if err := app.Stop(stopCtx); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if code != 0 {
		return errors.New("a background loop failed; see the log above")
	}
	return nil
}

// complain writes every fault of err with its remedy, one a line.
func complain(out io.Writer, name string, err error) {
	var joined interface{ Unwrap() []error }
	if _, isFault := fault.As(err); errors.As(err, &joined) && (!isFault || len(joined.Unwrap()) > 0) {
		for _, e := range joined.Unwrap() {
			complain(out, name, e)
		}
		return
	}
	fmt.Fprintf(out, "%s: %v\n", name, err)
	if f, ok := fault.As(err); ok && f.Remedy() != "" {
		fmt.Fprintf(out, "  remedy: %s\n", f.Remedy())
	}
}
