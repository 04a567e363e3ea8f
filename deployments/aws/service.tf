resource "aws_cloudwatch_log_group" "service" {
  name              = "/${var.name}/service"
  retention_in_days = 30
}

resource "aws_ecs_cluster" "service" {
  name = var.name
  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

data "aws_iam_policy_document" "tasks" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
  }
}

# What Fargate may do to start a task. The service itself has no role, because it does not use AWS.
resource "aws_iam_role" "execution" {
  name_prefix        = "${var.name}-execution-"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
}

resource "aws_iam_role_policy_attachment" "execution" {
  role       = aws_iam_role.execution.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

data "aws_iam_policy_document" "secrets" {
  statement {
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [for secret in aws_secretsmanager_secret.role : secret.arn]
  }
}

resource "aws_iam_role_policy" "secrets" {
  name   = "secrets"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.secrets.json
}

locals {
  # The rest of the URL after role and password; each container has the password in a variable. The image's Dockerfile
  # puts the certificate authorities of RDS at this path.
  database_url = "@${aws_rds_cluster.database.endpoint}/widgets?sslmode=verify-full&sslrootcert=/etc/widgets/rds.pem"

  # Only the load balancer can reach the service, and decides who gets in unless [auth] is set (docs/security.md).
  environment = merge({ WIDGETS_ALLOW_PUBLIC_WITHOUT_AUTH = "true" }, var.environment)

  logs = {
    for container in ["service", "authorities", "roles", "migrate"] : container => {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.service.name
        awslogs-region        = var.region
        awslogs-stream-prefix = container
      }
    }
  }
}

resource "aws_ecs_task_definition" "service" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory_mib
  execution_role_arn       = aws_iam_role.execution.arn
  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  container_definitions = jsonencode([{
    name                   = "service"
    image                  = var.image
    essential              = true
    readonlyRootFilesystem = true
    linuxParameters        = { capabilities = { drop = ["ALL"] } }
    command                = ["serve", "--store=postgres://authenticator${local.database_url}"]
    environment            = [for name, value in local.environment : { name = name, value = value }]
    secrets                = [{ name = "WIDGETS_STORE_PASSWORD", valueFrom = aws_secretsmanager_secret.role["authenticator"].arn }]
    portMappings           = [{ containerPort = 3000, protocol = "tcp" }]
    healthCheck            = { command = ["CMD", "widgets", "health", "--live"], interval = 10, timeout = 5, retries = 3, startPeriod = 30 }
    # Longer than the service waits for answers in progress (25 s).
    stopTimeout      = 40
    ulimits          = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]
    logConfiguration = local.logs["service"]
  }])
}

resource "aws_ecs_service" "service" {
  name                               = var.name
  cluster                            = aws_ecs_cluster.service.id
  task_definition                    = aws_ecs_task_definition.service.arn
  launch_type                        = "FARGATE"
  desired_count                      = var.replicas_min
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 60

  network_configuration {
    subnets         = var.private_subnet_ids
    security_groups = [aws_security_group.service.id]
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.service.arn
    container_name   = "service"
    container_port   = 3000
  }

  # Rolls back a version that does not start.
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  lifecycle {
    # The autoscaler sets it.
    ignore_changes = [desired_count]
  }

  # So that its tasks find their role and their schema.
  depends_on = [aws_lb_listener.https, terraform_data.migrate]
}

# Gives `authenticator` its password, then brings the schema up to date.
resource "aws_ecs_task_definition" "migrate" {
  family                   = "${var.name}-migrate"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 256
  memory                   = 512
  execution_role_arn       = aws_iam_role.execution.arn
  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  volume {
    name = "authorities"
  }

  container_definitions = jsonencode([
    # psql's image lacks the certificate authorities of RDS; the service's image has them. When a task's volume is first
    # mounted on an image's VOLUME, the image's files there are copied into it, whatever the container then does.
    {
      name                   = "authorities"
      image                  = var.image
      essential              = false
      readonlyRootFilesystem = true
      command                = ["--version"]
      mountPoints            = [{ sourceVolume = "authorities", containerPath = "/etc/widgets" }]
      logConfiguration       = local.logs["authorities"]
    },
    {
      name       = "roles"
      image      = var.psql_image
      essential  = false
      dependsOn  = [{ containerName = "authorities", condition = "SUCCESS" }]
      entryPoint = ["bash", "-c"]
      command = [<<-SCRIPT
        psql --no-psqlrc --set=ON_ERROR_STOP=1 --set=password="$AUTHENTICATOR" <<'SQL'
        SELECT 'CREATE ROLE authenticator LOGIN NOINHERIT'
          WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'authenticator') \gexec
        ALTER ROLE authenticator PASSWORD :'password';
        SQL
        SCRIPT
      ]
      environment = [
        { name = "PGHOST", value = aws_rds_cluster.database.endpoint },
        { name = "PGDATABASE", value = "widgets" },
        { name = "PGUSER", value = "widgets_owner" },
        { name = "PGSSLMODE", value = "verify-full" },
        { name = "PGSSLROOTCERT", value = "/authorities/rds.pem" },
      ]
      mountPoints = [{ sourceVolume = "authorities", containerPath = "/authorities", readOnly = true }]
      secrets = [
        { name = "PGPASSWORD", valueFrom = aws_secretsmanager_secret.role["owner"].arn },
        { name = "AUTHENTICATOR", valueFrom = aws_secretsmanager_secret.role["authenticator"].arn },
      ]
      logConfiguration = local.logs["roles"]
    },
    {
      name                   = "migrate"
      image                  = var.image
      essential              = true
      dependsOn              = [{ containerName = "roles", condition = "SUCCESS" }]
      readonlyRootFilesystem = true
      command                = ["migrate", "--store=postgres://widgets_owner${local.database_url}"]
      secrets                = [{ name = "WIDGETS_STORE_PASSWORD", valueFrom = aws_secretsmanager_secret.role["owner"].arn }]
      logConfiguration       = local.logs["migrate"]
    },
  ])
}

# Runs that task and waits until it ends, before the service is created and before each new version of it. With
# migrate_by_terraform = false you run it yourself (output `migrate`).
resource "terraform_data" "migrate" {
  triggers_replace = var.migrate_by_terraform ? [aws_ecs_task_definition.migrate.arn, tostring(var.password_version)] : []

  provisioner "local-exec" {
    command = var.migrate_by_terraform ? local.migrate : "true"
  }

  depends_on = [
    aws_rds_cluster_instance.database,
    aws_iam_role_policy.secrets,
    aws_iam_role_policy_attachment.execution,
    aws_secretsmanager_secret_version.role,
    aws_vpc_security_group_egress_rule.service_to_database,
    aws_vpc_security_group_ingress_rule.database_from_service,
    aws_vpc_security_group_egress_rule.service_to_aws,
  ]
}

locals {
  migrate = join(" ", [
    "${abspath(path.module)}/migrate",
    var.region,
    aws_ecs_cluster.service.name,
    aws_ecs_task_definition.migrate.arn,
    join(",", var.private_subnet_ids),
    aws_security_group.service.id,
  ])
}

resource "aws_appautoscaling_target" "service" {
  service_namespace  = "ecs"
  resource_id        = "service/${aws_ecs_cluster.service.name}/${aws_ecs_service.service.name}"
  scalable_dimension = "ecs:service:DesiredCount"
  min_capacity       = var.replicas_min
  max_capacity       = var.replicas_max
}

resource "aws_appautoscaling_policy" "cpu" {
  name               = "${var.name}-cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.service.service_namespace
  resource_id        = aws_appautoscaling_target.service.resource_id
  scalable_dimension = aws_appautoscaling_target.service.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = 60
    scale_out_cooldown = 30
    scale_in_cooldown  = 300
    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}
