data "aws_rds_engine_version" "postgres" {
  engine  = "aurora-postgresql"
  version = var.database_engine_major_version
  latest  = true
}

resource "aws_db_subnet_group" "database" {
  name       = var.name
  subnet_ids = var.private_subnet_ids
}

resource "aws_rds_cluster_parameter_group" "database" {
  name_prefix = "${var.name}-"
  family      = data.aws_rds_engine_version.postgres.parameter_group_family

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }
  parameter {
    name  = "idle_in_transaction_session_timeout"
    value = "60000"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_rds_cluster" "database" {
  cluster_identifier              = var.name
  engine                          = "aurora-postgresql"
  engine_version                  = data.aws_rds_engine_version.postgres.version_actual
  database_name                   = "widgets"
  master_username                 = "widgets_owner"
  master_password_wo              = ephemeral.aws_secretsmanager_secret_version.owner.secret_string
  master_password_wo_version      = var.password_version
  db_subnet_group_name            = aws_db_subnet_group.database.name
  vpc_security_group_ids          = [aws_security_group.database.id]
  db_cluster_parameter_group_name = aws_rds_cluster_parameter_group.database.name
  storage_encrypted               = true
  storage_type                    = var.database_storage_type
  backup_retention_period         = var.backup_retention_days
  copy_tags_to_snapshot           = true
  deletion_protection             = true
  final_snapshot_identifier       = "${var.name}-final"
  enabled_cloudwatch_logs_exports = ["postgresql"]

  dynamic "serverlessv2_scaling_configuration" {
    for_each = var.database_instance_class == "db.serverless" ? [var.database_serverless_capacity] : []
    content {
      min_capacity = serverlessv2_scaling_configuration.value.min
      max_capacity = serverlessv2_scaling_configuration.value.max
    }
  }

  lifecycle {
    # AWS installs minor versions.
    ignore_changes = [engine_version]
  }
}

resource "aws_rds_cluster_instance" "database" {
  count                        = var.database_instances
  identifier                   = "${var.name}-${count.index}"
  cluster_identifier           = aws_rds_cluster.database.id
  engine                       = aws_rds_cluster.database.engine
  instance_class               = var.database_instance_class
  db_subnet_group_name         = aws_db_subnet_group.database.name
  auto_minor_version_upgrade   = true
  performance_insights_enabled = true
}
