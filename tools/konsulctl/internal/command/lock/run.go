package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
)

// What a command that runs under a lock finds in its environment.
const (
	envLockName  = "KONSUL_LOCK_NAME"
	envLockToken = "KONSUL_LOCK_TOKEN"
)

// endGrace is how long a command has to end by itself when its lock is lost.
const endGrace = 5 * time.Second

func run(a *cli.App) *cobra.Command {
	var opts konsul.LockOptions
	var delay time.Duration
	cmd := &cobra.Command{
		Use: "run NAME -- COMMAND [ARGUMENT...]", Short: "Run a command while holding a lock",
		Long: `Run a command while holding a lock, and end with its exit code. The command finds the lock's token in
KONSUL_LOCK_TOKEN and its name in KONSUL_LOCK_NAME. When the lock is lost, because the registry heard nothing of
this program for --ttl, the command gets SIGTERM, five seconds later SIGKILL, and the exit code is 5.`,
		Example: `  konsulctl lock run jobs/nightly -- ./nightly.sh
  konsulctl lock run jobs/nightly --wait 10m --ttl 30s -- sh -c 'echo $KONSUL_LOCK_TOKEN'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 || len(args) < 2 {
				return cli.Usage(cmd, errors.New("write the lock's name, --, and the command"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("delay") {
				opts.Delay = &delay
			}
			return underLock(cmd.Context(), a, args[0], &opts, args[1:])
		},
	}
	cmd.Flags().DurationVar(&opts.TTL, "ttl", konsul.DefaultLockTTL, "how long the lock outlives this program if it is silent")
	cmd.Flags().DurationVar(&opts.Wait, "wait", 0, "how long to wait for the lock")
	cmd.Flags().DurationVar(&delay, "delay", 0, "how long to keep others out when the lock is lost (default: the registry's setting)")
	cmd.Flags().StringVar(&opts.Holder, "holder", "", "what to tell others of its holder (default: this machine's name)")
	a.DatacenterFlag(cmd, &opts.Datacenter, "datacenter of the lock (default: the gateway's)")
	return cmd
}

func underLock(ctx context.Context, a *cli.App, name string, opts *konsul.LockOptions, line []string) (err error) {
	if opts.Holder == "" {
		opts.Holder, _ = os.Hostname() // Without it others see the lease alone.
	}
	opts.Datacenter = cli.Named(opts.Datacenter)
	path, err := exec.LookPath(line[0])
	if err != nil {
		return fault.Invalid("COMMAND", "%q cannot be run", line[0]).Wrap(err).WithRemedy("name a program")
	}
	client, err := a.Client(a.Timeout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	lock, err := client.Locks.Acquire(ctx, name, opts)
	if err != nil {
		return err
	}
	err = child(ctx, a, lock, path, line[1:])
	if lost := lock.Err(); lost != nil {
		return errors.Join(fault.New(fault.Unavailable, konsul.ReasonLeaseLost, "lock %s was lost while the command ran", name).Wrap(lost), err)
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.Timeout)
	defer cancel()
	return errors.Join(err, lock.Release(after))
}

// child runs a command until it ends, the lock is lost or ctx is over.
func child(ctx context.Context, a *cli.App, lock *konsul.Lock, path string, args []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-lock.Lost():
			cancel()
		case <-ended:
		}
	}()
	child := exec.CommandContext(ctx, path, args...) //nolint:gosec // running what it is told is this command's purpose
	child.Stdin, child.Stdout, child.Stderr = a.In, a.Out, a.Err
	child.Env = append(os.Environ(), envLockName+"="+lock.Name, fmt.Sprintf("%s=%d", envLockToken, lock.Token))
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	child.WaitDelay = endGrace
	err := child.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return cli.ExitError{Code: exit.ExitCode()}
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}
