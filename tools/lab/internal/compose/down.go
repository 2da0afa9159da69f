package compose

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Down removes the containers, networks, volumes and files of a lab, if there are any.
//
// It does not ask docker-compose: that takes all containers off their networks at the same moment,
// and engines of its age then lose count of a network's endpoints now and then, and keep the
// network until they are restarted. One after the other they do not. A network that stays all the
// same is reported and left; the next lab of the project uses it again.
func (l *Lab) Down(ctx context.Context) error {
	containers, err := l.list(ctx, "ps", "--all")
	if err != nil {
		return err
	}
	for _, id := range containers {
		if _, err := docker(ctx, "rm", "--force", "--volumes", id); err != nil {
			return err
		}
	}
	volumes, err := l.list(ctx, "volume", "ls")
	if err != nil {
		return err
	}
	if len(volumes) > 0 {
		if _, err := docker(ctx, append([]string{"volume", "rm"}, volumes...)...); err != nil {
			return err
		}
	}
	networks, err := l.list(ctx, "network", "ls")
	if err != nil {
		return err
	}
	for _, network := range networks {
		if _, err := docker(ctx, "network", "rm", network); err != nil {
			fmt.Fprintf(l.o.Err, "a network stays until Docker is restarted: %v\n", err)
		}
	}
	return l.removeFiles()
}

// list returns what of a kind belongs to the project.
func (l *Lab) list(ctx context.Context, kind ...string) ([]string, error) {
	found, err := docker(ctx, append(kind, "--quiet", "--filter", l.ofProject())...)
	return strings.Fields(found), err
}

func (l *Lab) ofProject() string { return "label=com.docker.compose.project=" + l.o.Project }

// Subnets are 10.N.x.0/24 with the first N of these that nobody uses.
const (
	firstNet = 203
	lastNet  = 222
)

// chooseNet returns the first two octets of the lab's subnets: what the user set, else those of a
// network that an earlier lab could not remove, as docker-compose will use it again, else free
// ones.
func (l *Lab) chooseNet(ctx context.Context) (string, error) {
	if chosen := l.o.Lookup("KONSUL_NET"); chosen != "" {
		return chosen, nil
	}
	ids, err := docker(ctx, "network", "ls", "--quiet")
	if err != nil {
		return "", err
	}
	format := `{{.Name}} {{range .IPAM.Config}}{{.Subnet}}{{end}}`
	networks, err := docker(ctx, append([]string{"network", "inspect", "--format", format}, strings.Fields(ids)...)...)
	if err != nil {
		return "", err
	}
	return pickNet(networks, l.o.Project)
}

// pickNet chooses from lines of a network's name and subnet.
func pickNet(networks, project string) (string, error) {
	used := map[string]bool{}
	for line := range strings.Lines(networks) {
		name, subnet, _ := strings.Cut(strings.TrimSpace(line), " ")
		octets := strings.SplitN(subnet, ".", 3)
		if len(octets) < 3 {
			continue
		}
		net := octets[0] + "." + octets[1]
		if strings.HasPrefix(name, project+"_") {
			return net, nil
		}
		used[net] = true
	}
	for n := firstNet; n <= lastNet; n++ {
		if net := "10." + strconv.Itoa(n); !used[net] {
			return net, nil
		}
	}
	return "", fmt.Errorf("no free subnets from 10.%d to 10.%d: remove networks nobody needs with `docker network prune`, or set KONSUL_NET", firstNet, lastNet)
}
